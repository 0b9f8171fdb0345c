"""Django's application of tests/clients/django on a cluster, through client/python.

Without python3-django (Debian's is for /usr/bin/python3) the tests say so and pass. Another Django:
LECTERN_DJANGO=DIRECTORY, and where it wants another Python LECTERN_DJANGO_PYTHON=PROGRAM.
"""

import fcntl
import functools
import glob
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from unittest import mock

from tests.lib import django_functions
from tests.lib.cluster import BUILD, HANG, ROOT, Cluster, case, expect, expect_equal
from tests.lib.django_functions import interpreter

PACKAGES = os.path.join(ROOT, "build", "clients")  # as tests/clients/programs.py
APPLICATION = os.path.join(ROOT, "tests", "clients", "django")
SQLITE = {"ENGINE": "django.db.backends.sqlite3"}


def needs_django(test):
    """Passes, with a note, where there is no Django."""
    @functools.wraps(test)
    def wrapped():
        python = interpreter()
        if python is None:
            print("skipped: no Django here (apt install python3-django): nothing was tested")
            return
        test(python)
    return wrapped


def environment(database):
    return {**django_functions.environment(os.path.join(ROOT, "client", "python"), APPLICATION),
            "DJANGO_SETTINGS_MODULE": "settings", "LECTERN_DATABASE": json.dumps(database),
            "TMPDIR": tempfile.gettempdir(), "PATH": BUILD + os.pathsep + os.environ["PATH"]}


def run(python, database, script, *arguments, text=None, status=0):
    done = subprocess.run([python, os.path.join(APPLICATION, script), *arguments], check=False,
                          env=environment(database), capture_output=True, text=True, input=text,
                          timeout=50 * HANG)
    expect(done.returncode == status, lambda: f"{script} {arguments}: status {done.returncode}\n"
           f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def lectern(*nodes, **more):
    return {"ENGINE": "lectern.django", **more,
            "NAME": ",".join(f"http://127.0.0.1:{n.http_port}" for n in nodes)}


def results(python, database):
    lines = run(python, database, "program.py").stdout.splitlines()
    return dict(json.loads(line) for line in lines)


def differences(wanted, found, where=""):
    """Where two results differ, a line for each."""
    if wanted == found:
        return []
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found))
    elif isinstance(wanted, dict) and isinstance(found, dict) and wanted.keys() == found.keys():
        pairs = ((k, (wanted[k], found[k])) for k in wanted)
    else:
        return [f"{where}: SQLite {str(wanted)[:500]}, Lectern {str(found)[:500]}"]
    return [line for key, (a, b) in pairs for line in differences(a, b, f"{where}[{key}]")]


@case(seconds=120)
@needs_django
def test_django_results_are_those_of_sqlite(python):
    """Through a follower and through the leader, the whole program."""
    wanted = results(python, {**SQLITE, "NAME": os.path.join(tempfile.gettempdir(), "ref.db")})
    expect(len(wanted) >= 18, f"the program did {sorted(wanted)}")
    for at_leader in (False, True):
        with Cluster(3, http=True, election_timeout=3000) as c:
            leader = c.leader()
            node = leader if at_leader else c.others(leader)[0]
            found = results(python, lectern(node))
            differ = differences(wanted, found)
            expect(not differ, lambda d=differ, n=node: f"through {n}:\n" + "\n".join(d))
            c.check_equal()


FEATURES = """
import json, sqlite3, sys
sqlite3.dbapi2.sqlite_version_info = tuple(json.loads(sys.argv[1]))
from lectern.django.base import DatabaseFeatures
features = DatabaseFeatures(None)
features.server_version = (3, 40, 1)
found = {}
for name in dir(features):
    try:
        value = getattr(features, name)
    except AttributeError:  # it wants a connection
        continue
    if isinstance(value, (bool, int)):
        found[name] = value
print(json.dumps(found, sort_keys=True))
"""


def check_features(python):
    """They are the nodes', however old or new the SQLite of this machine's Python is."""
    old, new = (subprocess.run([python, "-c", FEATURES, version], check=True, env=environment({}),
                               capture_output=True, text=True).stdout
                for version in ("[3, 22, 0]", "[3, 99, 0]"))
    differ = differences(json.loads(old), json.loads(new))
    expect(not differ and len(json.loads(old)) > 80, lambda: f"old and new: {differ}")


def backported():
    """The directory of the Django of Debian 12's backports (4.2), unpacked and not installed: the
    installed one stays what it is. Or None."""
    kept = os.path.join(PACKAGES, "django-backports")
    os.makedirs(PACKAGES, exist_ok=True)
    with open(os.path.join(PACKAGES, "lock"), "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(kept) and shutil.which("apt-get"):
            with tempfile.TemporaryDirectory(dir=PACKAGES) as d:
                try:
                    done = subprocess.run(["apt-get", "-q", "download",
                                           "python3-django/bookworm-backports"], cwd=d, timeout=60,
                                          check=False, stdout=subprocess.DEVNULL,
                                          stderr=subprocess.DEVNULL).returncode == 0
                except subprocess.TimeoutExpired:  # what there is of it is a part
                    done = False
                for package in glob.glob(os.path.join(d, "*.deb")) if done else ():
                    subprocess.run(["dpkg", "-x", package, os.path.join(d, "root")], check=True)
                    os.rename(os.path.join(d, "root"), kept)
    found = os.path.join(kept, "usr", "lib", "python3", "dist-packages")
    return found if os.path.isdir(os.path.join(found, "django")) else None


@case(seconds=180)
@needs_django
def test_django_of_backports(_python):
    """The program again, with Django 4.2: the same results as on SQLite with 4.2."""
    place = backported()
    if place is None:
        print("skipped: Django of Debian 12's backports cannot be had here (apt-get download)")
        return
    with mock.patch.dict(os.environ, {"LECTERN_DJANGO": place}):
        python = "/usr/bin/python3"
        version = subprocess.run([python, "-m", "django", "--version"], check=True, text=True,
                                 capture_output=True, env=environment(SQLITE)).stdout
        expect(version.startswith("4.2."), f"Django {version}")
        check_features(python)
        wanted = results(python, {**SQLITE, "NAME": os.path.join(tempfile.gettempdir(), "ref.db")})
        with Cluster(1, http=True) as c:
            differ = differences(wanted, results(python, lectern(c.node(1))))
            expect(not differ, lambda: "\n".join(differ))


class Loop:
    """loop.py, and the lines that it wrote."""

    def __init__(self, python, database):
        self.process = subprocess.Popen(  # pylint: disable=consider-using-with
            [python, os.path.join(APPLICATION, "loop.py")], env=environment(database), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.lines = []

    def read_done(self, count):
        """Reads until COUNT more transactions are done."""
        end = time.monotonic() + 30 * HANG
        while count > 0:
            line = self.process.stdout.readline()
            expect(line and time.monotonic() < end, lambda: "the loop stands still:\n" +
                   "".join(self.lines[-30:]))
            self.lines.append(line)
            count -= line.startswith("done ")

    def finish(self):
        self.process.stdin.close()
        self.lines += self.process.stdout  # until its end; communicate() would miss what is read
        expect_equal(self.process.wait(60 * HANG), 0, f"status of the loop: {self.lines[-20:]}")
        expect_equal(self.lines[-1], "end\n", "last line of the loop")

    def numbers(self, word):
        found = (re.match(rf"{word} (\d+)", line) for line in self.lines)
        return {int(m.group(1)) for m in found if m}


@case(seconds=120)
@needs_django
def test_django_through_the_death_of_leaders(python):
    """kill -9 of the leader, twice, under a loop of small transactions of a program that speaks to
    it first: only OperationalErrors, nothing acknowledged is lost, nothing is doubled."""
    with Cluster(3, http=True) as c:
        leader = c.leader()
        database = lectern(leader, *c.others(leader), OPTIONS={"timeout": 20})
        run(python, database, "manage.py", "migrate", "--verbosity=0")
        c.client().query("INSERT INTO shop_counter(name, value) VALUES ('marks', 0)")
        loop = Loop(python, database)
        for _ in range(2):
            loop.read_done(40)
            victim = c.leader()
            victim.kill()
            loop.read_done(40)
            c.restart(victim)
            c.wait_serving()
        loop.finish()
        done, failed = loop.numbers("done"), loop.numbers("failed")
        marks = [row[0] for row in c.leader().client().query(
            "SELECT number FROM shop_mark ORDER BY number", level="strong").rows]
        value = c.leader().client().query("SELECT value FROM shop_counter", level="strong").rows
        said = [line for line in loop.lines if line.startswith("failed ")]
        print(f"{len(done)} done, {len(said)} failed: {said}")
        expect_equal(len(marks), len(set(marks)), "marks, each once")
        expect(done <= set(marks), lambda: f"acknowledged and lost: {sorted(done - set(marks))}")
        expect(set(marks) <= done | failed,
               lambda: f"marks that nobody made: {set(marks) - done - failed}")
        for line in said:
            number, kind = int(line.split()[1]), line.split()[2]
            expect(number not in marks or kind == "UnknownOutcome",
                   f"it is there, though the program was told that it was not done: {line}")
        expect_equal(value[0][0], sum(1 for n in marks if n % 2 == 0), "counted in transactions")
        c.check_equal()


@case(seconds=90)
@needs_django
def test_django_commands(python):
    """dbshell; `manage.py test`, in a node of its own and in a cluster that is named."""
    check_features(python)
    with Cluster(1, http=True) as c, Cluster(1, http=True) as other:
        database = lectern(c.node(1))
        run(python, database, "manage.py", "migrate", "--verbosity=0")
        done = run(python, database, "manage.py", "dbshell",
                   text="SELECT count(*) || ' migrations' FROM django_migrations "
                        "WHERE app = 'shop';\n")
        expect("3 migrations" in done.stdout, f"dbshell wrote {done.stdout!r} {done.stderr!r}")
        tests = ("manage.py", "test", "--noinput", "shop")
        done = run(python, database, *tests)
        expect(re.search(r"Ran \d+ tests.*\nOK", done.stderr, re.S), done.stderr)
        named = lectern(c.node(1), TEST={"NAME": lectern(other.node(1))["NAME"]})
        for _ in range(2):  # the second time it is not a new one
            done = run(python, named, *tests)
            expect(re.search(r"Ran \d+ tests.*\nOK", done.stderr, re.S), done.stderr)
        expect_equal(other.client().query("SELECT count(*) FROM sqlite_master "
                                          "WHERE name LIKE 'shop%'").rows, [(0,)], "tables left")
        same = lectern(c.node(1), TEST={"NAME": database["NAME"]})
        done = run(python, same, *tests, status=1)
        expect("would destroy its data" in done.stderr, done.stderr)
        expect_equal(c.client().query("SELECT count(*) FROM shop_book").rows, [(3,)], "books")


@case(short=True)
@needs_django
def test_django_settings_that_are_wrong(python):
    """Each is an ImproperlyConfigured at once, which names what is wrong; no node is asked."""
    done = run(python, {"ENGINE": "lectern.django", "NAME": "db.sqlite3"}, "slips.py")
    said = [json.loads(line) for line in done.stdout.splitlines()]
    wrong = [one for one in said if one[1]]
    expect_equal((len(wrong), len(said)), (33, 39), "slips, and what is right")
    expect(said[:33] == wrong, f"what is right comes behind: {said[33:]}")
    for database, kind, text in wrong:
        expect_equal(kind, "ImproperlyConfigured", f"{database}: {text}")
        expect(len(text) < 400, f"{len(text)} characters: {text}")
        if "OPTIONS" not in database:
            expect("NAME has to be the URLs of the nodes" in text and "http://10.0.0.1:80" in text,
                   text)
            continue
        name = re.search(r"'OPTIONS': {'(\w+)'", database).group(1)
        expect(name in text or name.startswith("xxx"), f"{name} is named: {text}")
        if "there is no" in text:
            expect("timeout, connect_timeout, read, headers, transaction_mode, init_command, "
                   "shell, lecternd" in text, text)
    expect("'/srv/app/db.sqlite3'" in said[3][2], said[3][2])
