"""What kind of statement an SQL text begins with: enough to know what may be sent again."""

import re

_SPACE = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?(?:\*/|$)|;)*", re.S)
_WORD = re.compile(r"[A-Za-z]+")
# A parameter's name; before it, what may look like one and is none.
_NAME = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?(?:\*/|$)|[:@$](\w+)""",
                   re.S)

# Of what changes rows: in front of these sqlite3 begins a transaction, and they have a rowcount.
CHANGES = ("INSERT", "UPDATE", "DELETE", "REPLACE")
_READS = ("SELECT", "VALUES", "EXPLAIN")
_BEGINS = ("BEGIN", "SAVEPOINT")


def words(sql, count=3):
    """The first words of SQL in capitals, without comments."""
    found, at = [], 0
    while len(found) < count:
        at = _SPACE.match(sql, at).end()
        word = _WORD.match(sql, at)
        if word is None:
            break
        found.append(word.group().upper())
        at = word.end()
    return found


def is_empty(sql):
    """Nothing but space, comments and semicolons."""
    return _SPACE.match(sql).end() == len(sql)


def names(sql):
    """Names of parameters in SQL: of :name, @name and $name, outside of strings and comments."""
    return {found.group(1) for found in _NAME.finditer(sql) if found.group(1)}


def is_repeatable(sql):
    """May SQL be sent again, outside of a transaction, when its answer did not come?

    Reads, and what only opens a transaction: the first one is rolled back by the server, since
    nobody has its baton. WITH may write.
    """
    first = words(sql, 1)
    if first == ["PRAGMA"]:
        return "=" not in sql or "foreign_keys" in sql.lower()
    return first != [] and (first[0] in _READS or first[0] in _BEGINS)


def is_change(sql):
    return any(word in CHANGES for word in words(sql, 1))


def may_change(sql):
    """Also WITH ... INSERT."""
    return words(sql, 1) == ["WITH"] or is_change(sql)


def is_commit(sql):
    return words(sql, 1) in (["COMMIT"], ["END"])


def is_release(sql):
    return words(sql, 1) == ["RELEASE"]


def is_rollback(sql):
    """Of all, not to a savepoint."""
    found = words(sql, 3)
    return found[:1] == ["ROLLBACK"] and "TO" not in found
