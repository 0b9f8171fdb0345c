"""Fields that come, go, change and are renamed: tables with rows are made anew."""

from django.db import migrations, models
from django.db.models.functions import Upper


def number_pages(apps, schema_editor):
    apps.get_model("shop", "Book").objects.filter(title="Odyssey").update(score=4.5)


class Migration(migrations.Migration):
    dependencies = [("shop", "0002_rows")]

    operations = [
        migrations.AddField("Book", "opens", models.TimeField(null=True)),
        migrations.AddField("Book", "reading", models.DurationField(null=True)),
        migrations.AddField("Book", "score", models.FloatField(null=True)),
        migrations.AddField("Book", "data", models.JSONField(default=dict)),
        migrations.AddField("Book", "shelf", models.CharField(max_length=10, default="A")),
        migrations.AddField("Author", "born", models.DateField(null=True)),
        migrations.AlterField("Book", "title", models.CharField(max_length=200)),
        migrations.AlterField("Book", "pages", models.PositiveIntegerField(default=100)),
        migrations.AlterField("Book", "published", models.DateTimeField(db_index=True)),
        migrations.RenameField("Author", "full_name", "name"),
        migrations.AlterField("Author", "name", models.CharField(max_length=80, unique=True)),
        migrations.RemoveField("Author", "nonsense"),
        migrations.RenameModel("Label", "Tag"),
        migrations.AddConstraint("Book", models.UniqueConstraint(
            fields=["author", "title"], name="one_title_each")),
        migrations.AddConstraint("Book", models.UniqueConstraint(
            fields=["shelf"], condition=models.Q(in_print=False), name="one_old_book_a_shelf")),
        migrations.AddIndex("Book", models.Index(Upper("title"), name="book_upper_title")),
        migrations.RunPython(number_pages, migrations.RunPython.noop),
    ]
