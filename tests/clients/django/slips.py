"""Slips in settings.DATABASES, and what is said of them: JSON lines [database, exception, text]."""

import json
import pathlib

import django
from django.core.management import call_command
from django.db import connections
from django.db.utils import ConnectionHandler

NAME = "http://127.0.0.1:1"
LONG = "x" * 1000
SLIPS = [{"NAME": name} for name in (
    "", None, "db.sqlite3", pathlib.Path("/srv/app/db.sqlite3"), "10.0.0.1:8080", LONG, 5,
    f"{NAME}?read=strong", "http://user:word@h", f"{NAME},db.sqlite3")]
SLIPS += [{"NAME": NAME, "OPTIONS": options} for options in (
    {"tmeout": 5}, {"isolation_level": None}, {LONG: 1}, {"timeout": LONG}, {"timeout": "20"},
    {"timeout": 0}, {"timeout": float("nan")}, {"timeout": True}, {"timeout": 10 ** 400},
    {"connect_timeout": []},
    {"read": "fresh"}, {"read": "bounded:"}, {"read": 1}, {"headers": "a: b"},
    {"headers": {"a": 1}}, {"headers": {"a:": "b"}}, {"headers": {"a": "b\r\nc: d"}},
    {"transaction_mode": "SLOW"}, {"transaction_mode": 1}, {"init_command": ["SELECT 1"]},
    {"shell": 5433}, {"lecternd": 1})]
RIGHT = [{"NAME": name, "OPTIONS": options} for name in (NAME, f" {NAME}/, https://h/path ", [NAME])
         for options in ({}, {"timeout": 5, "connect_timeout": 0.5, "read": "bounded:100",
                              "headers": {"X-A": "b c"}, "transaction_mode": "deferred",
                              "init_command": "", "shell": None, "lecternd": "lecternd"})]


def attempt(database, action):
    try:
        action()
        said = [None, ""]
    except Exception as e:  # pylint: disable=broad-except
        said = [type(e).__name__, str(e)]
    print(json.dumps([repr(database), *said]))


def main():
    django.setup()
    for database in SLIPS:
        one = ConnectionHandler({"default": {"ENGINE": "lectern.django", **database}})["default"]
        attempt(database, one.ensure_connection)
    attempt("dbshell", lambda: call_command("dbshell"))  # of settings.py: a file's name
    for database in RIGHT:
        one = ConnectionHandler({"default": {"ENGINE": "lectern.django", **database}})["default"]
        attempt(database, one.get_connection_params)
    connections.close_all()


main()
