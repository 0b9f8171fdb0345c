"""What the admin shows."""

from django.contrib import admin

from .models import Author, Book, Tag


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    list_display = ["title", "author", "price", "published", "in_print"]
    list_filter = ["in_print", "tags", "published"]
    search_fields = ["title", "author__name", "tags__word"]
    date_hierarchy = "published"
    ordering = ["title"]
    list_select_related = True


admin.site.register(Author)
admin.site.register(Tag)
