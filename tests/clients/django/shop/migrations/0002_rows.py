"""Rows that the later migrations have to keep."""

import datetime

from django.db import migrations


def fill(apps, schema_editor):
    author, label, book = (apps.get_model("shop", n) for n in ("Author", "Label", "Book"))
    old = author.objects.create(full_name="Homer")
    young = author.objects.create(full_name="Vergil", mentor=old)
    epic = label.objects.create(id="00000000-0000-0000-0000-000000000001", word="epic")
    when = datetime.datetime(2001, 2, 3, 4, 5, 6, 789, tzinfo=datetime.timezone.utc)
    for title, who, pages in (("Iliad", old, None), ("Odyssey", old, 500), ("Aeneid", young, 300)):
        one = book.objects.create(title=title, author=who, price="12.50", published=when,
                                  pages=pages, cover=b"\x00\xff")
        one.tags.add(epic)


class Migration(migrations.Migration):
    dependencies = [("shop", "0001_create")]
    operations = [migrations.RunPython(fill, migrations.RunPython.noop)]
