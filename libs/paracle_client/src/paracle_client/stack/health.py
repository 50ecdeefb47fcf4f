"""Asking a service whether it is ready."""

from __future__ import annotations

import http.client
from typing import Final

from paracle_embedded.processes import LOOPBACK

_TIMEOUT_S: Final = 2.0


def readiness(port: int) -> str | None:
    """`None` if `/readyz` on `port` says yes, else why not in a few words."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        text = response.read(500).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    else:
        return None if response.status == http.HTTPStatus.OK else f"{response.status} {text}"
    finally:
        connection.close()
