"""`manage.py dbshell`: the SQL shell, at the addresses that the nodes tell."""

import http.client
import json
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.client import BaseDatabaseClient

from ..door import http_connection
from .settings import checked_options, checked_urls


def native_addresses(urls):
    """HOST:PORT of the nodes for the native protocol, with commas, as GET /nodes tells them."""
    for url in urls:
        connection = http_connection(url, 5)
        try:
            connection.request("GET", urlsplit(url).path + "/nodes")
            nodes = json.loads(connection.getresponse().read())["nodes"]
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            continue
        finally:
            connection.close()
        found = [node["address"] for node in nodes if node.get("address")]
        if found:
            return ",".join(found)
    raise ImproperlyConfigured(
        "No node told where it listens for the shell: give OPTIONS['shell'] as "
        '"HOST:PORT,HOST:PORT" of the native protocol.')


class DatabaseClient(BaseDatabaseClient):
    """Runs `lectern`."""

    executable_name = "lectern"

    @classmethod
    def settings_to_cmd_args_env(cls, settings_dict, parameters):
        where = (checked_options(settings_dict["OPTIONS"]).get("shell")
                 or native_addresses(checked_urls("NAME", settings_dict["NAME"])))
        return [cls.executable_name, *parameters, where], None
