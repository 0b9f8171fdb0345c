"""The tables as they were first."""

import uuid

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    operations = [
        migrations.CreateModel("Author", [
            ("id", models.BigAutoField(primary_key=True, serialize=False, auto_created=True,
                                       verbose_name="ID")),
            ("full_name", models.CharField(max_length=40)),
            ("mentor", models.ForeignKey("shop.author", null=True, related_name="pupils",
                                         on_delete=django.db.models.deletion.SET_NULL)),
            ("nonsense", models.IntegerField(default=7)),
        ]),
        migrations.CreateModel("Label", [
            ("id", models.UUIDField(primary_key=True, serialize=False, default=uuid.uuid4)),
            ("word", models.CharField(max_length=20, unique=True)),
        ]),
        migrations.CreateModel("Book", [
            ("id", models.BigAutoField(primary_key=True, serialize=False, auto_created=True,
                                       verbose_name="ID")),
            ("title", models.CharField(max_length=50)),
            ("author", models.ForeignKey("shop.Author", related_name="books",
                                         on_delete=django.db.models.deletion.CASCADE)),
            ("tags", models.ManyToManyField("shop.Label", related_name="books")),
            ("price", models.DecimalField(max_digits=8, decimal_places=2)),
            ("published", models.DateTimeField()),
            ("pages", models.PositiveIntegerField(null=True)),
            ("in_print", models.BooleanField(default=True)),
            ("cover", models.BinaryField(default=b"")),
        ]),
        migrations.CreateModel("Counter", [
            ("id", models.BigAutoField(primary_key=True, serialize=False, auto_created=True,
                                       verbose_name="ID")),
            ("name", models.CharField(max_length=20, unique=True)),
            ("value", models.IntegerField(default=0)),
        ]),
        migrations.CreateModel("Mark", [
            ("id", models.BigAutoField(primary_key=True, serialize=False, auto_created=True,
                                       verbose_name="ID")),
            ("number", models.IntegerField(unique=True)),
        ]),
    ]
