"""Small transactions, one after the other, until standard input ends; each one's fate is a line.

    LECTERN_DATABASE=... loop.py

"done N" is written when Django has returned from the transaction that makes mark N, "failed N
CLASS TEXT" when it raised an OperationalError. The last line is "end". Odd numbers are made by one
statement without BEGIN, even ones in a transaction with a savepoint.
"""
# pylint: disable=wrong-import-position

import os
import select
import sys

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
django.setup()

from django.db import OperationalError, connection, transaction  # noqa: E402
from django.db.models import F  # noqa: E402

from shop.models import Counter, Mark  # noqa: E402


def one(number):
    if number % 2 == 1:
        Mark.objects.create(number=number)
        return
    with transaction.atomic():
        before = Mark.objects.count()
        with transaction.atomic():
            Mark.objects.create(number=number)
        Counter.objects.filter(name="marks").update(value=F("value") + 1)
        if Mark.objects.count() != before + 1:
            raise AssertionError("another count than this transaction's own")


def main():
    number = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        try:
            one(number)
            print(f"done {number}", flush=True)
        except OperationalError as e:
            kind = type(e.__cause__).__name__
            print(f"failed {number} {kind} {' '.join(str(e).split())}", flush=True)
    connection.close()
    print("end", flush=True)


main()
