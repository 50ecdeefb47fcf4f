"""What is said of a dependency that is away."""

import errno
import socket
import ssl

import pytest

from paracle_chassis import outages
from paracle_domain.errors import Conflict, Unavailable


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 9)"), "Connection refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (ssl.SSLCertVerificationError(1, "certificate verify failed"), "certificate verify failed"),
        (OSError("Multiple exceptions"), "Multiple exceptions"),
        (ConnectionResetError(), "ConnectionResetError"),
    ],
)
def test_the_system_says_why_there_is_no_connection(error, says):
    assert outages.reason(error) == says


async def test_an_outage_is_outlasted_and_nothing_else(monkeypatch, caplog):
    monkeypatch.setattr(outages, "_DELAYS_S", (0.0,) * 3)
    left: list[Exception] = [ConnectionResetError("gone"), Unavailable("away"), Unavailable("away")]

    async def work() -> str:
        if left:
            raise left.pop(0)
        return "done"

    assert await outages.outlast(work, "somebody") == "done"
    assert [record.getMessage() for record in caplog.records] == ["somebody waits: gone", "somebody waits: away"]
    left += [Conflict("no")]
    with pytest.raises(Conflict):
        await outages.outlast(work, "somebody")
    left += [Conflict("not yet")]
    assert await outages.outlast(work, "somebody", away=lambda error: isinstance(error, Conflict)) == "done"
