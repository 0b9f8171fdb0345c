"""What settings.DATABASES may hold for Lectern. What is wrong in it is an ImproperlyConfigured that
names it, before a node is asked."""

from django.core.exceptions import ImproperlyConfigured

from ..errors import InterfaceError
from ..options import check, shown, urls_of

OF_CONNECTIONS = ("timeout", "connect_timeout", "read", "headers")  # as of lectern.connect()
MODES = ("DEFERRED", "IMMEDIATE", "EXCLUSIVE")
OWN = ("transaction_mode", "init_command", "shell", "lecternd")
EXAMPLE = "http://10.0.0.1:8080,http://10.0.0.2:8080"


def _wrong(what):
    return ImproperlyConfigured(f"settings.DATABASES: {what}")


def checked_urls(name, value):
    """VALUE of the setting NAME as a list of URLs."""
    try:
        return urls_of(value)
    except InterfaceError as e:
        raise _wrong(f'{name} has to be the URLs of the nodes, for example "{EXAMPLE}" '
                     f"(there is no file): {e}.") from e


def _check_own(name, value):
    if not isinstance(value, str):
        raise _wrong(f"OPTIONS: {name} is a text, and not {shown(value)}.")
    if name == "transaction_mode" and value.upper() not in MODES:
        raise _wrong(f"OPTIONS: transaction_mode {shown(value)} is none of {', '.join(MODES)}.")


def checked_options(options):
    """OPTIONS, without those that are None: these have their defaults."""
    known = (*OF_CONNECTIONS, *OWN)
    for name, value in options.items():
        if name not in known:
            raise _wrong(f"OPTIONS: there is no {shown(name)}. There are {', '.join(known)}.")
        if value is None:
            continue
        if name in OWN:
            _check_own(name, value)
            continue
        try:
            check(name, value)
        except InterfaceError as e:
            raise _wrong(f"OPTIONS: {e}.") from e
    return {name: value for name, value in options.items() if value is not None}
