"""Each kind of field and relation that Django stores in its own way."""

import uuid

from django.db import models
from django.db.models.functions import Upper


class Author(models.Model):
    name = models.CharField(max_length=80, unique=True)
    born = models.DateField(null=True)
    mentor = models.ForeignKey("self", null=True, on_delete=models.SET_NULL,
                               related_name="pupils")

    def __str__(self):
        return self.name


class Tag(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    word = models.CharField(max_length=20, unique=True)

    def __str__(self):
        return self.word


class Book(models.Model):
    title = models.CharField(max_length=200)
    author = models.ForeignKey(Author, on_delete=models.CASCADE, related_name="books")
    tags = models.ManyToManyField(Tag, related_name="books")
    price = models.DecimalField(max_digits=8, decimal_places=2)
    published = models.DateTimeField(db_index=True)
    opens = models.TimeField(null=True)
    reading = models.DurationField(null=True)
    pages = models.PositiveIntegerField(default=100)
    in_print = models.BooleanField(default=True)
    score = models.FloatField(null=True)
    data = models.JSONField(default=dict)
    cover = models.BinaryField(default=b"")
    shelf = models.CharField(max_length=10, default="A")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["author", "title"], name="one_title_each"),
            models.UniqueConstraint(fields=["shelf"], condition=models.Q(in_print=False),
                                    name="one_old_book_a_shelf"),
        ]
        indexes = [models.Index(Upper("title"), name="book_upper_title")]

    def __str__(self):
        return self.title


class Counter(models.Model):
    """For loops of small transactions."""

    name = models.CharField(max_length=20, unique=True)
    value = models.IntegerField(default=0)


class Mark(models.Model):
    number = models.IntegerField(unique=True)
