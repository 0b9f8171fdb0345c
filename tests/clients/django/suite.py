#!/usr/bin/env python3
"""Django's own tests, on its SQLite backend and on Lectern, and where the two differ.

    LECTERN_BUILD=build/release tests/clients/django/suite.py [--follower] SOURCE [LABEL ...]

SOURCE is Django's unpacked source (Debian: apt-get source python-django); the Django that is tested
is that of SOURCE, or with LECTERN_DJANGO another one of the same release. --follower: two clusters
of three nodes, through a follower of each; without it each database is one node.
"""
import argparse
import contextlib
import json
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
sys.path.insert(0, ROOT)
from tests.lib import django_functions  # noqa: E402  pylint: disable=wrong-import-position
from tests.lib.cluster import BUILD, Cluster  # noqa: E402  pylint: disable=wrong-import-position

LABELS = """aggregation aggregation_regress annotations backends basic bulk_create constraints
custom_columns custom_lookups datatypes dates datetimes db_functions db_utils defer delete
delete_regress expressions expressions_case expressions_window fixtures foreign_key get_or_create
indexes inspectdb introspection lookup m2m_through many_to_many many_to_one migrations model_fields
model_inheritance nested_foreign_keys null_queries one_to_one ordering prefetch_related queries
queryset_pickle raw_query reserved_names reverse_lookup save_delete_hooks schema select_for_update
select_related sessions_tests string_lookup timezones transaction_hooks transactions
unmanaged_models update update_only_fields validation xor_lookups""".split()
NODE = {"transaction_idle_timeout": 3600000, "transaction_timeout": 86400000}


def on_sqlite(_stack):
    return {name: {"ENGINE": "django.db.backends.sqlite3"} for name in ("default", "other")}


def on_nodes(_stack):
    return {name: {"ENGINE": "lectern.django", "NAME": f"http://{name}.invalid",
                   "OPTIONS": {"lecternd": os.path.join(BUILD, "lecternd")}}
            for name in ("default", "other")}


def on_followers(stack):
    databases = on_nodes(stack)
    for database in databases.values():
        cluster = stack.enter_context(Cluster(3, http=True, **NODE))
        follower = cluster.others(cluster.leader())[0]
        database["TEST"] = {"NAME": f"http://127.0.0.1:{follower.http_port}"}
    return databases


def run(source, databases, labels):
    """The sum that Django prints, and the names of what failed."""
    place = [] if os.environ.get("LECTERN_DJANGO") else [source]
    env = django_functions.environment(HERE, os.path.join(ROOT, "client", "python"), *place)
    python = os.environ.get("LECTERN_DJANGO_PYTHON", "/usr/bin/python3")
    done = subprocess.run(
        [python, "-W", "ignore", "runtests.py", "--settings=suite_settings", "--parallel=1",
         "--noinput", *labels], cwd=os.path.join(source, "tests"), check=False,
        env={**env, "LECTERN_DATABASES": json.dumps(databases)}, text=True, errors="replace",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    end = re.search(r"^Ran (\d+ tests) in .*\n\n(.*)", done.stdout, re.M)
    if end is None:
        sys.exit(f"no tests were run:\n{done.stdout[-4000:]}")
    return " ".join(end.groups()), set(re.findall(r"^(?:ERROR|FAIL): (.*)", done.stdout, re.M))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--follower", action="store_true")
    parser.add_argument("source")
    parser.add_argument("label", nargs="*", help="the tests' names; else those of the database")
    given = parser.parse_args()
    source = os.path.abspath(given.source)
    labels = given.label or [name for name in LABELS
                             if os.path.isdir(os.path.join(source, "tests", name))]
    failed = []
    for databases in (on_sqlite, on_followers if given.follower else on_nodes):
        with contextlib.ExitStack() as stack:
            total, names = run(source, databases(stack), labels)
        print(f"{databases.__name__}: {total}", flush=True)
        failed.append(names)
    for name in sorted(failed[1] - failed[0]):
        print(f"fails here only: {name}")
    for name in sorted(failed[0] - failed[1]):
        print(f"fails on SQLite only: {name}")
    sys.exit(failed[0] != failed[1])


if __name__ == "__main__":
    main()
