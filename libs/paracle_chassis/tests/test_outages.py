"""What is said of a dependency that is away."""

import errno
import socket
import ssl

import pytest

from paracle_chassis import outages


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
