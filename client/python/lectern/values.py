"""Python's values as Hrana's, and back; adapters and converters as Python's sqlite3 has them.

An adapter makes of an object one of None, int, float, str, bytes. A converter gets the bytes of a
column's value (SQLite's text of it) and is chosen by the first word of the column's declared type
(PARSE_DECLTYPES), or by a name in brackets behind the column's own (PARSE_COLNAMES).
"""

import base64
import binascii
import datetime
import decimal
import math
import uuid

from . import statements
from .errors import OperationalError, ProgrammingError

PARSE_DECLTYPES, PARSE_COLNAMES = 1, 2
# JSON has no word for an infinite number. This one is read as infinite by any double.
BEYOND = 10 ** 400
INTEGER_MIN, INTEGER_MAX = -(1 << 63), (1 << 63) - 1

adapters = {}
converters = {}


def register_adapter(kind, adapter):
    """ADAPTER makes of an object of exactly the class KIND what can be stored."""
    adapters[kind] = adapter


def register_converter(name, converter):
    """CONVERTER makes of bytes what a column of the declared type NAME (any case) holds."""
    converters[name.upper()] = converter


# --- to the server --------------------------------------------------------------------------------


def _real(value):
    if math.isnan(value):
        return {"type": "null"}  # as SQLite stores it
    if math.isinf(value):
        value = BEYOND if value > 0 else -BEYOND
    return {"type": "float", "value": value}


def _integer(value):
    if not INTEGER_MIN <= value <= INTEGER_MAX:
        raise OverflowError("Python int too large to convert to SQLite INTEGER")
    return {"type": "integer", "value": str(int.__index__(value))}


def encode(value):
    """VALUE as Hrana has it."""
    if type(value) in adapters:
        value = adapters[type(value)](value)
    if value is None:
        return {"type": "null"}
    if isinstance(value, str):
        return {"type": "text", "value": str.__str__(value)}  # of an enum's member, what it holds
    if isinstance(value, int):  # bool is one
        return _integer(value)
    if isinstance(value, float):
        return _real(float.__float__(value))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"type": "blob", "base64": base64.b64encode(bytes(value)).decode("ascii")}
    raise ProgrammingError(f"no adapter makes a value of SQLite of {type(value).__name__}")


def arguments(sql, parameters):
    """The part of a Hrana statement that carries PARAMETERS: a sequence, or a mapping of names, of
    which SQL need not use all."""
    if hasattr(parameters, "keys"):
        used = statements.names(sql)
        found = [{"name": str(k), "value": encode(parameters[k])}
                 for k in parameters.keys() if str(k) in used]
        return {"named_args": found} if found else {}
    if not hasattr(parameters, "__getitem__"):  # a set, which has no order
        raise ProgrammingError("parameters are of unsupported type")
    return {"args": [encode(v) for v in parameters]} if len(parameters) > 0 else {}


def size_of(stmt):
    """About how many bytes a Hrana statement takes in a request."""
    given = [a["value"] for a in stmt.get("named_args", ())] + stmt.get("args", [])
    values = (v.get("value") or v.get("base64") or "" for v in given)
    return len(stmt["sql"]) + sum(len(v) if isinstance(v, str) else 24 for v in values)


# --- from the server ------------------------------------------------------------------------------


def _blob(text):
    return binascii.a2b_base64(text + "=" * (-len(text) % 4))


def decode(value):
    """A value of Hrana as Python has it."""
    kind = value["type"]
    if kind == "integer":
        return int(value["value"])
    if kind == "text":
        return value["value"]
    if kind == "null":
        return None
    if kind == "float":
        return float(value["value"])
    if kind == "blob":
        return _blob(value["base64"])
    raise OperationalError(f"the server sent a value of the unknown type {kind!r}")


def _raw(value):
    """The bytes that a converter gets: SQLite's text of the value."""
    return value if isinstance(value, bytes) else str(value).encode()


def converter_of(column, detect):
    """The converter of a column as the server describes it, or None."""
    name, declared = column.get("name") or "", column.get("decltype") or ""
    if detect & PARSE_COLNAMES and name.endswith("]") and "[" in name:
        found = converters.get(name[name.rindex("[") + 1:-1].upper())
        if found is not None:
            return found
    if detect & PARSE_DECLTYPES and declared:
        return converters.get(declared.split("(", 1)[0].split(" ", 1)[0].upper())
    return None


def column_name(column, detect):
    """A column's name as `description` has it."""
    name = column.get("name") or ""
    return name.split(" [", 1)[0] if detect & PARSE_COLNAMES else name


def decode_row(row, row_converters):
    """A row as a tuple; ROW_CONVERTERS has one entry, or None, for each column."""
    values = []
    for value, convert in zip(row, row_converters):
        value = decode(value)
        if convert is not None and value is not None:
            value = convert(_raw(value))
        values.append(value)
    return tuple(values)


def _timestamp(raw):
    return datetime.datetime.fromisoformat(raw.decode())


register_adapter(datetime.date, datetime.date.isoformat)
register_adapter(datetime.datetime, lambda value: value.isoformat(" "))
register_adapter(datetime.time, datetime.time.isoformat)
register_adapter(decimal.Decimal, str)
register_adapter(uuid.UUID, lambda value: value.hex)
register_converter("date", lambda raw: datetime.date.fromisoformat(raw.decode()))
register_converter("timestamp", _timestamp)
register_converter("datetime", _timestamp)
register_converter("time", lambda raw: datetime.time.fromisoformat(raw.decode()))
register_converter("bool", b"1".__eq__)
register_converter("boolean", b"1".__eq__)
