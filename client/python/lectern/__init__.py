"""Lectern's client for Python. See lectern.dbapi, and lectern.django for Django's backend."""

from .dbapi import *  # noqa: F401,F403  pylint: disable=wildcard-import,unused-wildcard-import

__version__ = "0.1.0"  # as LECTERN_VERSION_NUMBER of client/lectern.h; pyproject.toml takes it
