"""Which addresses are the internet's."""

from __future__ import annotations

import pytest

from paracle_chassis.addresses import is_address, is_guarded, is_public


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("2606:4700::1111", True),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
        ("::127.0.0.1", False),
        ("64:ff9b:1::7f00:1", False),
        ("fec0::1", False),
        ("8000::1", False),
    ],
)
def test_only_public_addresses_are_public(address: str, public: bool):
    assert is_public(address) is public


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "0.0.0.0", "fe80::1"]
)
def test_where_machines_give_their_credentials_away_is_guarded(address: str):
    assert is_guarded(address)
    assert not is_guarded("10.0.0.1")


def test_addresses_are_told_from_names():
    assert is_address("::1%eth0")
    assert not is_address("localhost")
