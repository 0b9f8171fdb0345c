"""What an application does, step by step; each step's result is one line of JSON.

    LECTERN_DATABASE=... program.py

The same lines must come whatever database it is: the test compares them with SQLite's.
"""
# pylint: disable=wrong-import-position

import datetime
import decimal
import io
import json
import os
import sys
import traceback
import uuid
import zoneinfo

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import (DatabaseError, IntegrityError, connection, models,  # noqa: E402
                       reset_queries, transaction)
from django.db.models import (Avg, Case, Count, Exists, F, Max, Min, OuterRef, Q,  # noqa: E402
                              StdDev, Subquery, Sum, Value, Variance, When, Window)
from django.db.models import functions as fn  # noqa: E402
from django.test import Client  # noqa: E402
from django.test.utils import CaptureQueriesContext  # noqa: E402
from django.utils import timezone  # noqa: E402

from shop.models import Author, Book, Counter, Tag  # noqa: E402

UTC = datetime.timezone.utc
STEPS = []


def step(function):
    STEPS.append(function)
    return function


def plain(value):
    """As JSON can have it, with the types told."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return f"float {value!r}"
    if isinstance(value, (bytes, memoryview)):
        return f"bytes {bytes(value).hex()}"
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, models.Model):
        return str(value)
    if isinstance(value, (list, tuple, set, models.QuerySet)):
        return [plain(v) for v in value]
    return f"{type(value).__name__} {value}"


def rows(queryset, *fields):
    return list(queryset.order_by("pk").values_list(*fields))


@step
def migrated():
    return [rows(Author.objects, "id", "name", "mentor__name", "born"),
            rows(Book.objects, "title", "author__name", "price", "published", "pages", "score",
                 "cover", "data", "shelf", "reading"),
            rows(Tag.objects, "id", "word"),
            [(b.title, [t.word for t in b.tags.all()]) for b in Book.objects.order_by("pk")]]


@step
def schema():
    with connection.cursor() as cursor:
        found = {}
        for name in sorted(connection.introspection.table_names(cursor)):
            found[name] = [
                [tuple(c) for c in connection.introspection.get_table_description(cursor, name)],
                sorted(connection.introspection.get_constraints(cursor, name).items()),
                connection.introspection.get_sequences(cursor, name)]
        return found


@step
def inspected():
    out = io.StringIO()
    call_command("inspectdb", "shop_book", "shop_author", "shop_tag", stdout=out)
    return out.getvalue()


@step
def checked():
    out = io.StringIO()
    call_command("makemigrations", "--check", "--dry-run", stdout=out)
    call_command("check", stdout=out)
    return out.getvalue()


@step
def created():
    ovid = Author.objects.create(name="Ovid", born=datetime.date(-1 + 44, 3, 20))
    made = Book.objects.create(
        title="Metamorphoses", author=ovid, price=decimal.Decimal("1234.56"),
        published=datetime.datetime(2020, 3, 29, 0, 59, 59, 123456, tzinfo=UTC),
        opens=datetime.time(8, 30, 0, 5), reading=datetime.timedelta(days=3, microseconds=7),
        pages=600, score=1e-7, cover=bytes(range(256)), shelf="B",
        data={"ä": [1, 2.5, None, True, {"x": "y'\"\\ "}], "n": 12345678901234567890})
    made.tags.add(*[Tag.objects.create(id=uuid.UUID(int=i), word=w)
                    for i, w in ((2, "myth"), (3, "change"), (4, "Ünïcödé ☃ 𝄞"))])
    made = Book.objects.get(pk=made.pk)
    return [made.pk, made.price, made.published, made.opens, made.reading, made.score, made.cover,
            made.data, ovid.born, [t.id for t in made.tags.order_by("id")],
            rows(Author.objects, "born")]


@step
def bulk():
    authors = Author.objects.bulk_create([Author(name=f"Author {i:03}") for i in range(600)])
    who = Author.objects.get(name="Author 000")
    Book.objects.bulk_create([
        Book(title=f"Volume {i}", author=who, price=i, pages=i * i % 97 + 1, score=i / 7 or None,
             published=datetime.datetime(2019, 1, 1, tzinfo=UTC) + datetime.timedelta(hours=i * 37))
        for i in range(300)])
    changed = list(Book.objects.filter(title__startswith="Volume 1"))
    for book in changed:
        book.data = {"k": book.pages, "odd": book.pages % 2 == 1}
    Book.objects.bulk_update(changed, ["data"])
    ignored = Author.objects.bulk_create([Author(name="Author 001"), Author(name="New")],
                                         ignore_conflicts=True)
    return [len(authors), Author.objects.count(), Book.objects.count(), len(ignored),
            rows(Book.objects.filter(data__odd=True), "title")]


@step
def changed():
    found = [Counter.objects.update_or_create(name="a", defaults={"value": v})[1] for v in (1, 2)]
    found += [Counter.objects.get_or_create(name="a")[1], Counter.objects.get(name="a").value]
    found.append(Counter.objects.filter(name="a").update(value=F("value") * 10 + 1))
    found.append(Book.objects.filter(author__name="Homer").update(
        pages=F("pages") + 1, title=fn.Concat(F("title"), Value("!"))))
    found.append(Book.objects.filter(title="none").update(pages=1))
    found += [Counter.objects.get(name="a").value, rows(Book.objects.filter(
        title__endswith="!"), "title", "pages")]
    found.append(Book.objects.filter(title__in=[f"Volume {i}" for i in range(290, 300)]).delete())
    return found


@step
def looked_up():
    books = Book.objects
    return [rows(q, "title") for q in (
        books.filter(title__regex=r"^[A-Z]\w+ 2\d?$"), books.filter(title__iregex=r"^METAm|ILI"),
        books.filter(title__icontains="ODYSSEY"), books.filter(title__contains="%"),
        books.filter(data__n=12345678901234567890), books.filter(data__k__gt=90),
        books.filter(data__has_key="ä"), books.filter(tags__word__startswith="Ü"),
        books.filter(published__date=datetime.date(2020, 3, 29)),
        books.filter(published__hour=1, published__year__lt=2019),
        books.filter(published__week_day=1, pages__lt=20),
        books.filter(price__range=(decimal.Decimal("12.4"), decimal.Decimal("12.6"))),
        books.filter(Q(pages=5) | ~Q(shelf="A")), books.filter(author__mentor__name="Homer"),
        books.filter(reading__gt=datetime.timedelta(days=1)),
        books.filter(Exists(Author.objects.filter(pk=OuterRef("author"), born__isnull=False))),
        books.exclude(author__name__startswith="Author").filter(in_print=True))]


@step
def aggregated():
    books = Book.objects.filter(title__startswith="Volume", score__isnull=False)
    found = books.aggregate(Avg("pages"), Sum("price"), Max("published"), Min("score"),
                            Count("author", distinct=True), sd=StdDev("pages"),
                            ss=StdDev("pages", sample=True), v=Variance("score"),
                            vs=Variance("score", sample=True),
                            few=Count("pk", filter=Q(pages__lt=10)))
    grouped = books.values("pages").annotate(n=Count("pk"), s=StdDev("score")).order_by("pages")
    windowed = books.annotate(place=Window(fn.RowNumber(), order_by=F("pages").desc()),
                              total=Window(Sum("pages"), order_by=F("pk").asc())).order_by("pk")
    newest = Author.objects.annotate(newest=Subquery(
        Book.objects.filter(author=OuterRef("pk")).order_by("-published").values("title")[:1]))
    return [found, list(grouped), list(windowed.values_list("place", "total")[:20]),
            rows(newest.filter(newest__isnull=False), "name", "newest"),
            Tag.objects.none().aggregate(Sum("pk")), Counter.objects.filter(name="zz").aggregate(
                StdDev("value"), Variance("value"))]


@step
def dates():
    books = Book.objects.filter(pk__lt=60).order_by("pk")
    zones = [zoneinfo.ZoneInfo("Asia/Kolkata"), zoneinfo.ZoneInfo("UTC")]
    found = [list(books.datetimes("published", "month")), list(books.dates("published", "week"))]
    for unit in ("year", "quarter", "month", "week", "day", "hour"):
        found.append([list(books.annotate(t=fn.Trunc("published", unit, tzinfo=z))
                           .values_list("t", flat=True)[:30]) for z in (None, *zones)])
    for part in (fn.ExtractYear, fn.ExtractIsoYear, fn.ExtractQuarter, fn.ExtractMonth,
                 fn.ExtractWeek, fn.ExtractWeekDay, fn.ExtractIsoWeekDay, fn.ExtractDay,
                 fn.ExtractHour, fn.ExtractMinute, fn.ExtractSecond):
        found.append(list(books.annotate(t=part("published")).values_list("t", flat=True)[:30]))
    found.append(rows(Book.objects.filter(reading__isnull=False).annotate(
        end=models.ExpressionWrapper(F("published") + F("reading"),
                                     output_field=models.DateTimeField()),
        early=F("opens") - Value(datetime.time(8)), day=fn.TruncDate("published"),
        clock=fn.TruncTime("published")), "end", "early", "day", "clock"))
    with timezone.override("America/New_York"):
        found.append(rows(books.annotate(d=fn.TruncDay("published")), "d"))
    return found


@step
def functions():
    book = Book.objects.filter(title="Metamorphoses")
    return rows(book.annotate(
        a=fn.MD5("title"), b=fn.SHA256("title"), c=fn.Reverse("title"), d=fn.LPad("title", 20),
        e=fn.Repeat("shelf", 3), f=fn.Cast("price", models.TextField()), g=fn.StrIndex(
            "title", Value("m")), h=fn.Round(fn.Sqrt("pages")), i=fn.Greatest("pages", Value(700)),
        j=fn.Coalesce("score", 0.0), k=fn.NullIf("shelf", Value("B")), l=fn.Length("title"),
        m=fn.Sin("pages"), n=F("pages").bitxor(5), o=Case(When(pages__gt=500, then=Value("long")),
                                                          default=Value("short"))),
        *"abcdefghijklmno")


class Left(Exception):
    """Leaves a block."""


@step
def transactions():
    found = []
    try:
        with transaction.atomic():
            Counter.objects.create(name="gone")
            raise Left
    except Left:
        found.append(Counter.objects.filter(name="gone").exists())
    with transaction.atomic():
        transaction.on_commit(lambda: found.append("committed"))
        Counter.objects.create(name="outer")
        for name in ("outer", "inner"):
            try:
                with transaction.atomic():
                    transaction.on_commit(lambda n=name: found.append(f"inner {n} committed"))
                    Counter.objects.create(name=name)
            except IntegrityError as e:
                found.append(str(e))
        found += ["before", Counter.objects.filter(name__in=["outer", "inner"]).count()]
        point = transaction.savepoint()
        Counter.objects.all().delete()
        transaction.savepoint_rollback(point)
    found.append(rows(Counter.objects, "name", "value"))
    try:
        with transaction.atomic():
            try:
                Counter.objects.create(name="outer")
            except IntegrityError:
                found.append("caught")
            Counter.objects.count()
    except transaction.TransactionManagementError as e:
        found.append(str(e)[:40])
    return found


@step
def broken():
    """What fails, with which exception and which words."""
    found = []
    author = Author.objects.get(name="Homer")

    def attempt(action):
        try:
            with transaction.atomic():
                action()
            found.append("nothing")
        except (DatabaseError, ValueError, OverflowError) as e:
            found.append([type(e).__name__, str(e)])

    def sql(text, params=None):
        with connection.cursor() as cursor:
            cursor.execute(text, params)
            return cursor.fetchall()
    when = datetime.datetime(2000, 1, 1, tzinfo=UTC)
    attempt(lambda: Author.objects.create(name="Homer"))
    attempt(lambda: Book.objects.create(title="Iliad!", author=author, price=1, published=when))
    attempt(lambda: Book.objects.create(title="x", author_id=99999, price=1, published=when))
    attempt(lambda: Book.objects.create(title="y", author=author, price=1, published=None))
    attempt(lambda: Book.objects.create(title="z", author=author, price=1, published=when,
                                        pages=-1))
    attempt(lambda: [Book.objects.create(title=f"old {i}", author=author, price=1, published=when,
                                         in_print=False) for i in range(2)])
    attempt(lambda: sql("SELECT * FROM nowhere"))
    attempt(lambda: sql("SELEC 1"))
    attempt(lambda: Counter.objects.create(name="big", value=2 ** 63))
    attempt(lambda: sql("SELECT %s, %s", [1, 2]))
    return found + [Book.objects.filter(author=author).count(), author.books.count()]


@step
def raw():
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, value, '100%%' FROM shop_counter WHERE name = %s", ["a"])
        found = [cursor.fetchone(), cursor.fetchone(), [c[0] for c in cursor.description]]
        cursor.executemany("INSERT INTO shop_counter(name, value) VALUES (%s, %s)",
                           [(f"many{i}", i) for i in range(5)])
        found.append(cursor.rowcount)
        cursor.execute("UPDATE shop_counter SET value = value + 1 WHERE name LIKE 'many%%'")
        found.append(cursor.rowcount)
        cursor.execute("SELECT value FROM shop_counter WHERE name LIKE %s ORDER BY 1", ["many%"])
        found += [cursor.fetchmany(2), cursor.fetchall()]
    found.append([c.name for c in Counter.objects.raw(
        "SELECT * FROM shop_counter WHERE value < %s ORDER BY id", [4])])
    found.append(len(list(Author.objects.iterator(chunk_size=50))))
    found.append(Book.objects.filter(pages=5).explain().split()[0])
    return found


@step
def queries():
    """What Django tells of its queries: last_executed_query."""
    reset_queries()
    with CaptureQueriesContext(connection) as captured:
        list(Book.objects.filter(title="it's", pages=5, price=decimal.Decimal("1.50"),
                                 cover=b"\x01", score=None, in_print=True))
        with transaction.atomic():
            Counter.objects.filter(name="a").update(value=7)
    return [q["sql"].replace("BEGIN IMMEDIATE", "BEGIN") for q in captured]


@step
def dumped():
    """dumpdata, everything deleted, loaddata: the same rows."""
    out = io.StringIO()
    call_command("dumpdata", "shop", "--natural-foreign", indent=1, stdout=out)
    path = os.path.join(os.environ["TMPDIR"], f"dump-{os.getpid()}.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write(out.getvalue())
    Author.objects.filter(mentor__isnull=False).delete()
    for model in (Book, Tag, Author, Counter):
        model.objects.all().delete()
    empty = [m.objects.count() for m in (Book, Tag, Author, Counter)]
    call_command("loaddata", path, verbosity=0)
    os.unlink(path)
    again = io.StringIO()
    call_command("dumpdata", "shop", "--natural-foreign", indent=1, stdout=again)
    return [empty, len(out.getvalue()), out.getvalue() == again.getvalue()]


@step
def administered():
    User.objects.create_superuser("root", "r@example.org", "secret")
    client = Client()
    found = [client.login(username="root", password="secret")]

    def page(path, method="get", data=None):
        answer = getattr(client, method)("/admin/shop/book/" + path, data or {})
        listed = (answer.context or {}).get("cl")
        found.append([answer.status_code, listed and listed.result_count,
                      listed and [str(r) for r in listed.result_list][:5]])
        return answer
    page("")
    page("?q=homer")
    page("?q=vol+12")
    page("?published__year=2019")
    page("?published__year=2019&published__month=3")
    page("?in_print__exact=1&o=-3&p=1")
    page("?tags__id__exact=00000000-0000-0000-0000-000000000002")
    book = Book.objects.get(title="Volume 7")
    page(f"{book.pk}/change/")
    page(f"{book.pk}/delete/")
    page(f"{book.pk}/delete/", "post", {"post": "yes"})
    page(f"{book.pk}/history/")
    chosen = [b.pk for b in Book.objects.filter(title__startswith="Volume 20")]
    page("", "post", {"action": "delete_selected", "_selected_action": chosen, "post": "yes"})
    page("add/")
    found.append(Book.objects.filter(pk__in=[book.pk, *chosen]).count())
    for url in ("/admin/", "/admin/shop/author/?q=x", "/admin/auth/user/?q=root"):
        found.append(client.get(url).status_code)
    return found


@step
def flushed():
    call_command("flush", interactive=False, verbosity=0)
    author = Author.objects.create(name="again")
    return [Book.objects.count(), Author.objects.count(), author.pk]


def main():
    call_command("migrate", verbosity=0)
    failed = False
    for function in STEPS:
        try:
            result = plain(function())
        except Exception:  # pylint: disable=broad-except
            failed = True
            result = ["failed", traceback.format_exc()]
        print(json.dumps([function.__name__, result], sort_keys=True), flush=True)
    sys.exit(failed)


main()
