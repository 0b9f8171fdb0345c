"""The Chinook database: a music shop, 11 tables, 15,600 rows, as a file of SQL statements.

The real one (github.com/lerocha/chinook-database, Chinook_Sqlite.sql) is taken from
LECTERN_CHINOOK, tests/data/chinook.sql or a shared/data directory beside the project. Where there
is none, a stand-in of the same shape is made: the same tables, keys and row counts with invented
content. What the tests compare with is always what SQLite itself makes of the same file.
"""

import os
import sqlite3

from tests.lib.cluster import ROOT

PLACES = [os.environ.get("LECTERN_CHINOOK", ""), os.path.join(ROOT, "tests/data/chinook.sql"),
          os.path.join(os.path.dirname(ROOT), "shared/data/chinook.sql")]
TABLES = ["Album", "Artist", "Customer", "Employee", "Genre", "Invoice", "InvoiceLine", "MediaType",
          "Playlist", "PlaylistTrack", "Track"]
TRACKS = 3503


def sql():
    """The text of the file."""
    for place in PLACES:
        if place and os.path.exists(place):
            with open(place, encoding="utf-8") as f:
                return f.read()
    return stand_in()


def expected(text):
    """The database that stock SQLite makes of it: {table: sorted rows}."""
    db = sqlite3.connect(":memory:")
    db.executescript(text)
    result = {t: sorted(db.execute(f"SELECT * FROM [{t}]"), key=repr) for t in TABLES}
    db.close()
    return result


SHAPE = [
    # table, rows, columns beside the key, (column, referenced table)
    ("Genre", 25, ["Name NVARCHAR(120)"], []),
    ("MediaType", 5, ["Name NVARCHAR(120)"], []),
    ("Artist", 275, ["Name NVARCHAR(120)"], []),
    ("Album", 347, ["Title NVARCHAR(160) NOT NULL"], ["Artist"]),
    ("Employee", 8, ["LastName NVARCHAR(20) NOT NULL", "Email NVARCHAR(60)"], []),
    ("Customer", 59, ["LastName NVARCHAR(20) NOT NULL", "Email NVARCHAR(60) NOT NULL"],
     ["Employee"]),
    ("Track", TRACKS, ["Name NVARCHAR(200) NOT NULL", "Milliseconds INTEGER NOT NULL",
                       "UnitPrice NUMERIC(10,2) NOT NULL"], ["Album", "MediaType", "Genre"]),
    ("Invoice", 412, ["InvoiceDate DATETIME NOT NULL", "Total NUMERIC(10,2) NOT NULL"],
     ["Customer"]),
    ("InvoiceLine", 2240, ["UnitPrice NUMERIC(10,2) NOT NULL", "Quantity INTEGER NOT NULL"],
     ["Invoice", "Track"]),
    ("Playlist", 18, ["Name NVARCHAR(120)"], []),
]


def stand_in():
    rows_of = {name: rows for name, rows, _, _ in SHAPE}
    out = ["/* A stand-in for Chinook: the same shape, invented content. */"]
    for name, rows, columns, references in SHAPE:
        keys = "".join(f", [{r}Id] INTEGER NOT NULL REFERENCES [{r}]([{r}Id])" for r in references)
        out.append(f"CREATE TABLE [{name}] ([{name}Id] INTEGER NOT NULL PRIMARY KEY, "
                   + ", ".join(columns) + f"{keys});")
        for r in references:
            out.append(f"CREATE INDEX [IFK_{name}{r}Id] ON [{name}] ([{r}Id]);")
        values = []
        for i in range(1, rows + 1):
            cells = [str(i)]
            for c in columns:
                text = "VARCHAR" in c or "DATETIME" in c
                cells.append(f"'{name} {c.split()[0]} \u00e9 ''{i * 7919 % 10007}'" if text
                             else str(i * 31 % 997))
            cells += [str(i * 7 % rows_of[r] + 1) for r in references]
            values.append("(" + ", ".join(cells) + ")")
        for at in range(0, rows, 1000):
            out.append(f"INSERT INTO [{name}] VALUES\n    "
                       + ",\n    ".join(values[at:at + 1000]) + ";")
    out.append("CREATE TABLE [PlaylistTrack] ([PlaylistId] INTEGER NOT NULL REFERENCES [Playlist]"
               "([PlaylistId]), [TrackId] INTEGER NOT NULL REFERENCES [Track]([TrackId]), "
               "PRIMARY KEY ([PlaylistId], [TrackId]));")
    pairs = [f"({i % 18 + 1}, {i * 5 % TRACKS + 1})" for i in range(8715)]
    for at in range(0, len(pairs), 1000):
        out.append("INSERT OR IGNORE INTO [PlaylistTrack] VALUES\n    "
                   + ",\n    ".join(pairs[at:at + 1000]) + ";")
    return "\n".join(out) + "\n"
