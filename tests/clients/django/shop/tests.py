"""Tests of the application, by Django's own runner."""

from django.db import IntegrityError, connection, transaction
from django.test import TestCase, TransactionTestCase

from .models import Author, Counter


class InTransaction(TestCase):
    """Each is a savepoint of one transaction."""

    @classmethod
    def setUpTestData(cls):
        Author.objects.create(name="of all")

    def test_rows_of_the_migrations(self):
        self.assertEqual(Author.objects.count(), 3)

    def test_deleted(self):
        Author.objects.all().delete()
        self.assertFalse(Author.objects.exists())

    def test_unique(self):
        with self.assertRaises(IntegrityError), transaction.atomic():
            Author.objects.create(name="of all")
        with self.assertNumQueries(1):
            self.assertEqual(Author.objects.filter(name="of all").count(), 1)


class Committed(TransactionTestCase):
    """Each is followed by a flush."""

    def test_first(self):
        Counter.objects.create(name="x")
        connection.close()
        self.assertEqual(Counter.objects.count(), 1)

    def test_second(self):
        self.assertEqual(Counter.objects.count(), 0)
