#!/usr/bin/python3
"""What the SQL functions of docs/FUNCTIONS.md give in Python: the reference for node/functions*.c.

Registers in a sqlite3 connection what Django's SQLite backend registers, from the Django that is
installed (3.2 or newer; Debian's python3-django). Where old Djangos differ, as Django 5 has it;
where Lectern differs on purpose, as docs/FUNCTIONS.md says.

    echo '["SELECT MD5(?)", ["x"]]' | django_functions.py    # JSON lines in, JSON lines out
    django_functions.py --golden FILE                        # writes tests/unit/node's table

A result is ["null"], ["integer", n], ["real", float.hex()], ["text", hex], ["blob", hex] or
["error", text]. Blobs among the parameters: {"blob": hex}.
"""
import datetime
import functools
import json
import operator
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import uuid
import zoneinfo

HERE = os.path.abspath(__file__)


def environment(*paths):
    """For a Python that shall find PATHS, and the Django in LECTERN_DJANGO, if that is set."""
    places = [*paths, os.environ.get("LECTERN_DJANGO", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in places if p),
            "PYTHONDONTWRITEBYTECODE": "1"}


@functools.lru_cache
def interpreter():
    """A Python that has Django, or None. Debian's package is for /usr/bin/python3 only."""
    for python in (os.environ.get("LECTERN_DJANGO_PYTHON"), sys.executable, "/usr/bin/python3"):
        if python and subprocess.run(
                [python, "-c", "import django.db.backends.sqlite3.base"], env=environment(),
                stderr=subprocess.DEVNULL, check=False).returncode == 0:
            return python
    return None


def evaluate(python, calls):
    """Results of CALLS, pairs of SQL and parameters, in the interpreter PYTHON."""
    done = subprocess.run([python, HERE], input="".join(json.dumps(c) + "\n" for c in calls),
                          check=True, capture_output=True, text=True, env=environment())
    return [json.loads(line) for line in done.stdout.splitlines()]


# --- what is not in the installed Django ---


@functools.lru_cache
def zone_names():
    return zoneinfo.available_timezones()


def split_zone(name):
    """"Europe/Berlin+05:30" in name and shift."""
    if name in zone_names():
        return name, None
    for sign in "+-":
        base, found, offset = name.rpartition(sign)
        if not found:
            continue
        m = re.fullmatch(r"(\d\d)(\d\d)?|(\d{1,2}):(\d{1,2})", offset, re.ASCII)
        if m:
            hours, minutes = int(m[1] or m[3]), int(m[2] or m[4] or 0)
            if hours < 24 and minutes < 60:
                shift = datetime.timedelta(hours=hours, minutes=minutes)
                return base, shift if sign == "+" else -shift
    return name, None


def datetime_parse(utils, dt, tzname=None, conn_tzname=None):
    if dt is None:
        return None
    try:
        dt = utils.typecast_timestamp(dt)
    except (TypeError, ValueError):
        return None
    if conn_tzname:
        dt = dt.replace(tzinfo=zoneinfo.ZoneInfo(conn_tzname))
    if tzname is not None and tzname != conn_tzname:
        name, shift = split_zone(tzname)
        if shift is not None:
            dt += shift
        zone = zoneinfo.ZoneInfo(name or conn_tzname)
        if dt.utcoffset() is None:
            raise ValueError("no time zone of the connection")
        dt = dt.astimezone(zone)
    return dt


def format_dtdelta(utils, connector, lhs, rhs):
    if None in (connector, lhs, rhs):
        return None
    connector = connector.strip()
    if connector not in ("+", "-"):
        return lhs * rhs if connector == "*" else lhs / rhs
    try:
        a, b = (datetime.timedelta(0, 0, v) if isinstance(v, int) else utils.typecast_timestamp(v)
                for v in (lhs, rhs))
    except (TypeError, ValueError):
        return None
    return str(a + b if connector == "+" else a - b)


def strict(parse, units, function):
    """FUNCTION with years of four digits and an error for unknown units."""
    @functools.wraps(function)
    def wrapped(unit, dt, tzname, conn_tzname):
        value = function(unit, dt, tzname, conn_tzname)
        if value is None and parse(dt, tzname, conn_tzname) is not None and unit not in units:
            raise ValueError(unit)
        if value is not None and "-" in value:
            year, rest = value.split("-", 1)
            value = year.zfill(4) + "-" + rest
        return value
    return wrapped


def time_trunc(utils, parse, unit, dt, tzname, conn_tzname):
    if dt is None:
        return None
    moment = parse(dt, tzname, conn_tzname)
    if moment is None:
        try:
            moment = utils.typecast_time(dt)
        except (TypeError, ValueError):
            return None
    if unit == "hour":
        return "%02i:00:00" % moment.hour
    if unit == "minute":
        return "%02i:%02i:00" % (moment.hour, moment.minute)
    if unit == "second":
        return "%02i:%02i:%02i" % (moment.hour, moment.minute, moment.second)
    raise ValueError(unit)


def bits(operation):
    """Of Django 6.1."""
    def finalize(values):
        try:
            return functools.reduce(operation, (v for v in values if v is not None))
        except TypeError:
            return None
    return aggregate(finalize)


def aggregate(function):
    return type("Aggregate", (list,), {"step": list.append, "finalize": function})


def register(conn):
    """Makes the reference's functions known to CONN; SQLite's own stay."""
    from django.db.backends import utils
    from django.db.backends.sqlite3 import base
    try:
        from django.db.backends.sqlite3 import _functions as f
    except ImportError:
        f = base
    parse = functools.partial(datetime_parse, utils)
    f._sqlite_datetime_parse = parse
    dates = ["year", "quarter", "month", "week", "day"]
    own = {
        "django_date_extract": f._sqlite_datetime_extract,
        "django_date_trunc": strict(parse, dates, f._sqlite_date_trunc),
        "django_datetime_trunc": strict(parse, dates + ["hour", "minute", "second"],
                                        f._sqlite_datetime_trunc),
        "django_time_trunc": functools.partial(time_trunc, utils, parse),
        "django_format_dtdelta": functools.partial(format_dtdelta, utils),
    }
    ours = re.compile(r"django_|regexp|bitxor|cot|[lr]pad|md5|repeat|reverse|sha\d|rand|stddev|"
                      "var_", re.IGNORECASE)

    class Recorder:
        """Stands for the connection that Django opens: keeps the functions that we have, too."""

        def create_function(self, name, n, function, deterministic=False):
            if not ours.match(name):
                return
            # Only these two take fewer arguments than the Python function.
            conn.create_function(name, n, own.get(name, function), deterministic=deterministic)

        def create_aggregate(self, name, n, kind):
            conn.create_aggregate(name, n, kind)

        def execute(self, *_args):
            return conn.execute("SELECT 1")

    if hasattr(f, "register"):
        f.register(Recorder())
    else:
        class Database:
            connect = staticmethod(lambda **_params: Recorder())
        base.Database, kept = Database, base.Database
        try:
            base.DatabaseWrapper.get_new_connection(base.DatabaseWrapper.__new__(
                base.DatabaseWrapper), {})
        finally:
            base.Database = kept
    conn.create_aggregate("ANY_VALUE", 1, aggregate(lambda self: self[0]))
    conn.create_aggregate("BIT_AND", 1, bits(operator.and_))
    conn.create_aggregate("BIT_OR", 1, bits(operator.or_))
    conn.create_aggregate("BIT_XOR", 1, bits(operator.xor))
    for version in (4, 7):  # only Python 3.14 has uuid7(), and the table looks at the form only
        conn.create_function(f"UUIDV{version}", 0, lambda: uuid.uuid4().hex)


# --- results ---


def shown(value):
    if value is None:
        return ["null"]
    if isinstance(value, int):
        return ["integer", value]
    if isinstance(value, float):
        return ["real", value.hex()]
    if isinstance(value, str):
        return ["text", value.encode().hex()]
    return ["blob", bytes(value).hex()]


def result(conn, sql, params=()):
    try:
        return shown(conn.execute(sql, params).fetchone()[0])
    except (sqlite3.Error, OverflowError, MemoryError) as e:
        return ["error", str(e)]


def connection():
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # without settings
    conn = sqlite3.connect(":memory:")
    register(conn)
    return conn


def main():
    conn = connection()
    if len(sys.argv) == 3 and sys.argv[1] == "--golden":
        sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(HERE))))
        from tests.lib.function_calls import golden_calls
        with open(sys.argv[2], "w", encoding="ascii") as out:
            for sql in golden_calls():
                kind, *value = result(conn, "SELECT " + sql)
                mark = "x" if kind in ("text", "blob") else ""
                out.write(f"{sql}\t{kind}" + (f"\t{mark}{value[0]}" if kind not in ("null", "error")
                                              else "") + "\n")
        return
    for line in sys.stdin:
        sql, params = json.loads(line)
        params = [bytes.fromhex(p["blob"]) if isinstance(p, dict) else p for p in params]
        print(json.dumps(result(conn, sql, params)))


if __name__ == "__main__":
    main()
