"""Where the API may listen."""

import socket

import pytest
from pydantic import ValidationError

from paracle_api_gateway.server import listen
from paracle_api_gateway.settings import Settings, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost"])
def test_loopback_addresses_are_taken(host):
    assert Settings(api_host=host).api_host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "paracle.example", "localhost.evil.example"])
def test_others_are_refused_with_the_way_out(host):
    with pytest.raises(ValidationError, match="PARACLE_API_ALLOW_UNAUTHENTICATED=true"):
        Settings(api_host=host)
    assert Settings(api_host=host, api_allow_unauthenticated=True).api_host == host


def test_a_taken_port_is_named():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port}.*PARACLE_API_PORT"):
            listen("127.0.0.1", port)


def test_ipv6_loopback_can_be_listened_on():
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine")
    with listen("::1", 0) as listener:
        assert is_loopback(listener.getsockname()[0])
