"""Python SDK of Paracle, the embedded stack, and the `paracle` command.

    from paracle_client import Client

    with Client("http://127.0.0.1:8080") as paracle:
        accepted = paracle.start_run("triage", {"folder": "mails"})
        for event in paracle.events(accepted.run_id, follow=True):
            print(event.type)

Names are loaded when they are used, so that the command line starts fast.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from paracle_client.aio import AsyncClient
    from paracle_client.client import Client
    from paracle_client.stack import Stack, StackFailed

__all__ = ["AsyncClient", "Client", "Stack", "StackFailed"]

_HOMES: Final = {
    "AsyncClient": "paracle_client.aio",
    "Client": "paracle_client.client",
    "Stack": "paracle_client.stack",
    "StackFailed": "paracle_client.stack",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    return getattr(import_module(_HOMES[name]), name)
