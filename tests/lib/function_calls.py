"""Calls of the SQL functions of docs/FUNCTIONS.md, to compare with Python's (django_functions.py).

golden_calls(): SQL expressions without parameters, always the same. random_calls(rng, n): (SQL,
parameters), good and bad ones. Both name each function.
"""
import datetime

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata",
         "Europe/Dublin", "Africa/Casablanca", "America/Sao_Paulo", "Pacific/Apia", "Asia/Tehran",
         "Antarctica/Troll", "America/Godthab", "Europe/London", "Asia/Gaza", "Pacific/Chatham",
         "America/St_Johns", "Africa/Monrovia", "Asia/Manila", "Etc/GMT+10", "Etc/GMT-14",
         "EST5EDT"]
BAD_ZONES = ["Nowhere/Land", "../etc/passwd", "/etc/passwd", "Europe/", "europe.berlin", "", "+",
             "zone.tab", "\u00e9", "x" * 300]
SHIFTS = ["+05:30", "-3:00", "+0530", "+07", "-23:59", "+00:00"]
UNITS = ["year", "quarter", "month", "week", "day", "hour", "minute", "second"]
PARTS = ["year", "month", "day", "quarter", "week", "week_day", "iso_week_day", "iso_year", "hour",
         "minute", "second", "microsecond"]
BAD_UNITS = ["", "Year", "century", "tzinfo", "__class__", None, 5]
AGGREGATES = ["STDDEV_POP", "STDDEV_SAMP", "VAR_POP", "VAR_SAMP", "ANY_VALUE", "BIT_AND", "BIT_OR",
              "BIT_XOR"]
HASHES = ["MD5", "SHA1", "SHA224", "SHA256", "SHA384", "SHA512"]
BAD_MOMENTS = [
    None, "", " ", "x", "2020", "2020-1", "2020-1-1", " 2020-01-01", "2020-01-01 ", "2020-13-01",
    "2020-02-30", "2020-02-29 1:2:3", "2019-02-29 00:00:00", "2020-01-01 10:20", "2020-01-01 10",
    "2020-01-01 10:20:30.5", "2020-01-01 10:20:30.1234567", "2020-01-01 10:20:30.5.5",
    "2020-01-01 24:00:00", "2020-01-01 10:60:00", "2020-01-01 10:20:60", "2020-01-01T10:20:30",
    "2020-01-01 10:20:30+02:00", "2020-01-01 10:20:30-02", "2020-01-01 10:20:30Z",
    "2020-01-01  10:20:30", "2020-01-01\t10:20:30 ", "2020-01-01 10:20:30 x", "0-1-1 0:0:0",
    "1-1-1 0:0:0", "0999-12-31 23:59:59", "9999-12-31 23:59:59.999999", "10000-1-1 0:0:0",
    "+2020-0_1-01 1:2:3", "2020-1_-1 1:2:3", "2020-01 1:2:3", "x-01 1:2:3",
    "99999999999-1-1 1:1:1", "2020-01-01 99999999999:1:1", "2020-01-01 1:2:3:4", "10:20:30",
    "1:2:3", "10:20", "10:20:30.5", "10:20:30.", "10:20:30.-5", "25:00:00", "10:-1:00",
    "10:20:30+02:00", "99999999999:0:0", "\u00a02020-01-01 10:20:30\u3000", "2020-01-01-01",
    "a:b:c",
    0, 1, 5, 0.0, 2.5, {"blob": ""}, {"blob": "323032302d30312d3031"}, "2020-01-01 ::", "::",
]
TEXTS = ["", "a", "abc", "H\u00e9llo W\u00f6rld", "\U0001f600x\u20ac", "a\0b", "x" * 300,
         "\u4e2d\u6587 text", "line\nline", "'\"\\", " "]
SUBJECTS = ["", "foo", "Foo bar", "foobar\n", "a\nb", "\n", "abc123", "aaa", "aaaaab", "\u00c4rger",
            "\u00e4rger", "stra\u00dfe 7", "a.b", "x-y_z", "12:34", "{3}", "a{,2}", "[x]", "(y)",
            "tab\there", "\u0663\u0664", "foo foo", "bar\r\n", "\u2028", "\v", "user@example.org",
            "a]b", "^", "$", "\\", "a#b c", ":alph]", "z\x00y", 12345, -7, 0.5, 1e22, 1e-7,
            123456.75,
            -0.0, 5e-324, 1.7976931348623157e308, 2.0 ** -44, {"blob": "00ff27"},
            {"blob": "612762"},
            {"blob": ""}, {"blob": "222722"}]
PATTERNS = [
    "", "foo", "^foo$", "(?i)FOO", "(?i)\u00c4RGER", "^a.b$", "(?s)^a.b$", "(?m)^b", "a$", r"a\Z",
    r"foobar$", r"foobar\Z", r"\d+", r"^\w+$", r"\bbar\b", r"\Bar", r"\s", r"[^\s]+", r"a{2,3}$",
    "a{,2}b", "a{,}b", r"a\{,2\}", "{3}", "x{", "a{2", "[[]", "[]x]", "[^]x]", "[[:alpha:]]",
    "[a-z-]",
    r"[\d-]", r"[a\-z]", r"[\]]", r"(?P<n>o)(?P=n)", r"(o)\1", r"(foo) \1", r"(?:foo){1}",
    r"foo(?=bar)", r"foo(?!bar)", r"(?<=foo)bar", r"(?<!foo)bar", r"(a)?b(?(1)x|$)",
    r"(?P<q>a)?(?(q)a|b)", r"(?x) f o o # comment (", r"(?x)a\ b", r"(?x)[ #]", "(?ix) FOO",
    r"(?i:F)oo", r"(?-i:f)oo", r"(?x: f o ) o", r"(?#comment)foo", r"\x66oo", r"\u0066oo",
    r"\U00000066oo", r"\146oo", r"\0", r"[\0]", r"[\146]", r"\.", r"\-", r"\@", r"\v", r"[\b]",
    r"\t", r"\n$", "(?m)$", "(?m)^", "(?m)^$", "^$", "foo|bar", "|", "(|x)", "a*?b", "a+?", "a??",
    r"^.*@.*\.org$", r"(?a)^\w+$", r"(?a)\d", "(?u)\\w", r"#", r"a#b", "\u00e4", "[\u00c0-\u00ff]",
    "[^\u00e4]rger", "stra(ss|\u00df)e", r"^[+-]?[0-9]+$", r"1e", r"^b'", r"\\", r"(?i)(?s)foo.",
    r"(?>a+)b", r"a++b", "[&&]", "[a||b]", "\\\u00e4", r"(((((x)))))?", r"(x)(y)?", "(?:)", "()",
    "(?-x:foo)", "(?i-x:FOO)", r"(?#a\)b)foo", "(?m-s:^b)",
    # Refused by Python.
    "(", ")", "[", "a**", "*", "+a", "?", "(*ACCEPT)", "(*LIMIT_MATCH=1)a", "(?R)", "(?1)", "(?|a)",
    "(?<n>a)", "(?'n'a)", "(?C1)a", r"\q", r"\N", r"\R", r"\X", r"\K", r"\h", r"\p{L}", r"\Q.\E",
    r"\G", r"\1", r"(a)\2", r"\x6", r"\u12", r"[\q]", r"[\w-z]", "[z-a]", "x(?i)y", "(?P<1>a)",
    "(?P=x)", "(?P>n)", "(?z)", "(?", "(?P", "(?P<", "(?(1)", "(?i", "(?#", "\\", "[\\", r"\400",
    "(?-i)", "(?)", r"(?#a\)", "(?P<n>a)(?P<n>b)", "{1}", "(?x)( *ACCEPT)", "(?x)( ?R)",
    "(?<=a*)b", "(?iL)a",
    "a{3,2}", 5, 2.5, None, {"blob": "61"},
]


def literal(v):
    """V as SQL, in printable ASCII."""
    if v is None:
        return "NULL"
    if isinstance(v, dict):
        return f"x'{v['blob']}'"
    if isinstance(v, (int, float)):
        return repr(v)
    if v.isascii() and v.isprintable():
        return "'" + v.replace("'", "''") + "'"
    return f"CAST(x'{v.encode().hex()}' AS TEXT)"


def call(name, *args):
    return f"{name}({', '.join(map(literal, args))})"


def over(name, values):
    """An aggregate over VALUES."""
    rows = ", ".join(f"({literal(v)})" for v in values)
    return f"(SELECT {name}(column1) FROM (VALUES {rows}))"


SERIES = [[1], [1.5], [1, 1], [1, 2], [1, 2, 3], [1, 2.0, 3], [0.1, 0.2, 0.3], [1e308, -1e308],
          [5e-324, 0.0], [5e-324, 1e-320, 3e-310], [2**62, -2**62], [2**63 - 1, -2**63], [1, None],
          [None], ["1", 2], [{"blob": "31"}, 2], [1e200, 3.0, 7e-200], [1, 2, 3, 4, 6, 8, 9, 1],
          [1.1, 1.1, 1.1], [10**15 + 0.5, 10**15 + 1.5], [-5, -5], [3.5, 3.5, 3], [1e160, 1e161],
          [9e999, 1.0], [-9e999, 1.0], [9e999, -9e999], [9e999], [1, 3037000500, 5], ["x"],
          [{"blob": "00ff"}], [None, "x", None], [6, 3, None], [6, 3, 2.0], ["x", 5], [2.5, 1]]


def golden_calls():
    for moment in BAD_MOMENTS:
        for unit in ("year", "week", "second"):
            yield call("django_datetime_trunc", unit, moment, None, None)
        yield call("django_date_trunc", "quarter", moment, None, None)
        yield call("django_time_trunc", "minute", moment, None, None)
        yield call("django_datetime_trunc", "hour", moment, "Europe/Berlin", "UTC")
        yield call("django_datetime_cast_date", moment, None, None)
        yield call("django_datetime_cast_time", moment, "America/New_York", "UTC")
        yield call("django_date_extract", "week_day", moment)
        yield call("django_datetime_extract", "hour", moment, None, None)
        yield call("django_time_extract", "second", moment)
        yield call("django_time_diff", moment, "10:00:00.5")
        yield call("django_timestamp_diff", "2020-01-01 00:00:00", moment)
        yield call("django_format_dtdelta", "+", moment, 86400000001)
        yield call("django_format_dtdelta", "-", "2020-01-01 00:00:00", moment)
    for unit in UNITS + BAD_UNITS:
        for name in ("django_date_trunc", "django_datetime_trunc", "django_time_trunc"):
            yield call(name, unit, "2024-05-16 17:18:19.25", None, None)
            yield call(name, unit, "2024-05-16", None, None)
            yield call(name, unit, None, None, None)
    for part in PARTS + BAD_UNITS:
        for moment in ("2024-12-30 17:18:19.25", "2021-01-03", "1:2:3.4"):
            yield call("django_datetime_extract", part, moment, "Asia/Kolkata", "UTC")
            yield call("django_date_extract", part, moment)
            yield call("django_time_extract", part, moment)
    for zone in ZONES + SHIFTS + BAD_ZONES + ["UTC+05:30", "Europe/Berlin-1:00", "UTC+24:00", None]:
        for moment in ("1850-01-01 12:00:00", "2023-03-26 01:00:00", "2023-10-29 00:59:59",
                       "2023-10-29 01:00:00", "2050-07-01 12:00:00", "0001-01-01 00:00:00",
                       "9999-12-31 23:00:00"):
            yield call("django_datetime_trunc", "second", moment, zone, "UTC")
        for moment in ("2023-03-26 02:30:00", "2023-10-29 02:30:00", "2060-03-28 02:30:00"):
            yield call("django_datetime_cast_time", moment, "UTC", zone)
    for sign in ("+", "-", "*", "/", " + ", "x", "", None, 5):
        for a in (0, 1, 86400000000, -1, 2**63 - 1, "2020-02-28 23:59:59.5", "2020-02-28", 2.5, "x",
                  None):
            for b in (1, -86400000000, 3, 0, "2020-03-01", "2020-02-28 00:00:00", 0.5):
                yield call("django_format_dtdelta", sign, a, b)
    for i, pattern in enumerate(PATTERNS):
        for subject in SUBJECTS[i % 3::3]:
            yield call("regexp", pattern, subject)
    for pattern in (r"(\1)", r"(a(b)\1)", r"(a)(b\1)(?P<n>\2)\3", r"((a)\2)\1"):
        yield call("regexp", pattern, "aababa")
    for subject in ("b,", "abab", "a"):  # a lookbehind looks at what is before the start
        yield call("regexp", r"((?<=a|b)+)\1", subject)
        yield call("regexp", r"(a?(?<=a|b){1,3})\1|k", subject)
    for text in TEXTS + [None, 5, 2.5, {"blob": "00ff"}]:
        for name in HASHES + ["REVERSE"]:
            yield call(name, text)
        for n in (0, 1, 2, -1, -300, 5, 12, 2**40, None, 2.5, "3"):
            for fill in ("", "-", "\u00e4b", None, 7, {"blob": "00"}):
                if n != 2**40 or fill == "":
                    yield call("LPAD", text, n, fill)
                    yield call("RPAD", text, n, fill)
            if n != 2**40:
                yield call("REPEAT", text, n)
                yield call("REPEAT", n, text)
    for a in (0, 1, -1, 2**63 - 1, 2.5, "1", None, {"blob": "31"}):
        yield call("COT", a)
        for b in (5, -2, 2.0, "x", None):
            yield call("BITXOR", a, b)
    for values in SERIES:
        for name in AGGREGATES:
            yield over(name, values)
    for name in AGGREGATES:
        yield f"(SELECT {name}(column1) FROM (VALUES (1)) WHERE column1 > 1)"
    yield "typeof(RAND())"
    yield "RAND() BETWEEN 0 AND 1"
    for name in ("UUIDV4()", "UUIDV7()"):
        yield f"{name} NOT GLOB '*[^0-9a-f]*' AND length({name}) = 32"
        yield f"length(substr({name}, 13, 1)) || (substr({name}, 17, 1) GLOB '[89ab]')"


# --- random ones ---


def some_moment(r):
    if r.random() < 0.15:
        return r.choice(BAD_MOMENTS)
    year = r.choice([r.randint(1, 9999), r.randint(1880, 2040), r.randint(1970, 2100)])
    moment = datetime.datetime(year, 1, 1) + datetime.timedelta(seconds=r.randrange(365 * 86400),
                                                                microseconds=r.randrange(10**6))
    form = r.choice(["%d-%02d-%02d", "%04d-%d-%d", "%d-%02d-%02d %02d:%02d:%02d",
                     "%04d-%02d-%02d %02d:%02d:%02d", "%04d-%02d-%02d %02d:%02d:%02d.%06d",
                     "%04d-%02d-%02d %02d:%02d:%02d.%06d+00"])
    return form % moment.timetuple()[:form.count("%")] if form.count("%") < 7 else \
        form % (moment.timetuple()[:6] + (moment.microsecond,))


def some_time(r):
    if r.random() < 0.15:
        return r.choice(BAD_MOMENTS)
    return "%d:%02d:%02d" % (r.randrange(24), r.randrange(60), r.randrange(60)) + \
        r.choice(["", ".%d" % r.randrange(10**6)])


def some_zones(r):
    if r.random() < 0.2:
        return [None, None]
    if r.random() < 0.1:
        return [r.choice(BAD_ZONES + [None]), r.choice(ZONES + BAD_ZONES)]
    name = r.choice(ZONES)
    return [r.choice([name, name, name, r.choice(SHIFTS), "UTC" + r.choice(SHIFTS)]),
            r.choice(["UTC", "UTC", r.choice(ZONES)])]


def some_number(r):
    return r.choice([r.randint(-10, 10), r.randint(-2**63, 2**63 - 1), r.uniform(-10, 10),
                     r.uniform(-1, 1) * 10.0 ** r.randint(-300, 300), r.getrandbits(52) * 5e-324])


def some_text(r):
    return r.choice([r.choice(TEXTS), "".join(r.choice("ab\u00e4\u20ac\U0001f600 ")
                                              for _ in range(r.randrange(40)))])


def some_pattern(r):
    parts = ["a", "b", "foo", ".", r"\d", r"\w", "[a-c]", "[^b]", "(a|b)", "(?:ab)", "^", "$",
             r"\b", "\u00e4", "o", r"\s", " "]
    pattern = "".join(r.choice(parts) + r.choice(["", "", "", "*", "+", "?", "{1,2}", "*?"])
                      for _ in range(r.randint(1, 6)))
    return r.choice(["", "(?i)", "(?m)"]) + pattern


def random_call(r):
    kind = r.randrange(12)
    if kind == 0:
        return "django_date_trunc", [
            r.choice(UNITS[:5] + BAD_UNITS), some_moment(r), *some_zones(r)]
    if kind == 1:
        return "django_datetime_trunc", [r.choice(UNITS), some_moment(r), *some_zones(r)]
    if kind == 2:
        return "django_time_trunc", [r.choice(UNITS[5:] + BAD_UNITS),
                                     r.choice([some_moment, some_time])(r), *some_zones(r)]
    if kind == 3:
        return r.choice(["django_datetime_cast_date", "django_datetime_cast_time"]), \
            [some_moment(r), *some_zones(r)]
    if kind == 4:
        return "django_datetime_extract", [r.choice(PARTS), some_moment(r), *some_zones(r)]
    if kind == 5:
        return r.choice([("django_date_extract", [r.choice(PARTS), some_moment(r)]),
                         ("django_time_extract", [r.choice(PARTS[8:]), some_time(r)]),
                         ("django_time_diff", [some_time(r), some_time(r)]),
                         ("django_timestamp_diff", [some_moment(r), some_moment(r)])])
    if kind == 6:
        return "django_format_dtdelta", [
            r.choice(["+", "-", "+", "-", "*", "/"]),
            *(r.choice([some_moment(r), r.randint(-10**15, 10**15), some_number(r)])
              for _ in range(2))]
    if kind == 7:
        return "regexp", [r.choice([r.choice(PATTERNS), some_pattern(r)]),
                          r.choice([r.choice(SUBJECTS), some_text(r), some_number(r)])]
    if kind == 8:
        return r.choice(["LPAD", "RPAD"]), [some_text(r), r.randint(-5, 60), some_text(r)]
    if kind == 9:
        return r.choice([(r.choice(HASHES + ["REVERSE"]), [some_text(r)]),
                         ("REPEAT", [some_text(r), r.randint(-2, 20)])])
    if kind == 10:
        return r.choice([("BITXOR", [r.randint(-2**63, 2**63 - 1), r.randint(-2**63, 2**63 - 1)]),
                         ("COT", [some_number(r)])])
    return r.choice(AGGREGATES), \
        [r.choice([some_number(r), r.randint(-100, 100)]) for _ in range(r.randint(1, 12))]


def random_calls(r, n):
    """N calls, [SQL, parameters] (a blob as {"blob": hex})."""
    for _ in range(n):
        name, params = random_call(r)
        if name in AGGREGATES:
            rows = ", ".join(["(?)"] * len(params))
            yield [f"SELECT {name}(column1) FROM (VALUES {rows})", params]
        else:
            yield [f"SELECT {name}({', '.join('?' * len(params))})", params]
