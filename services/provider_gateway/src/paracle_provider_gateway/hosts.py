"""Where providers may be, and which keys may go there. Pure; names are checked again when they are resolved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from paracle_chassis.addresses import is_address, is_guarded, is_public
from paracle_domain.errors import Forbidden
from paracle_domain.provider.presets import PRESETS, hosts_of_key


class HostRules:
    """Public addresses are everybody's; others only if the operator names their hosts.

    Parameters
    ----------
    private
        Hosts that may have addresses which are not public: `localhost`, `10.0.0.7`, `llm.internal:8000`, `*.internal`.
    of_keys
        Hosts to which keys may go, by the name of the key, besides those that presets know.
    """

    def __init__(self, private: Iterable[str] = (), of_keys: Mapping[str, Iterable[str]] | None = None) -> None:
        self._private = tuple(private)
        self._of_keys = {name: tuple(hosts) for name, hosts in (of_keys or {}).items()}

    def check_url(self, provider: str, url: str) -> None:
        """Refuse a URL whose host is an address that may not be connected to.

        Raises
        ------
        Forbidden
            The message names the setting that would allow it.
        """
        host, port = _place(url)
        if is_address(host):
            self.check_address(provider, host, port, host)

    def check_address(self, provider: str, host: str, port: int, address: str) -> None:
        """Refuse `address`, to which `host` led, unless it is public or the operator allows it; raises `Forbidden`."""
        if is_public(address):
            return
        if is_guarded(address):
            if any(_same(entry, address) for entry in self._private):
                return
        elif self.names_private(host, port):
            return
        raise Forbidden(
            f"provider {provider!r} may not be at {host}: {address} is not a public address; "
            "PARACLE_PROVIDER_HOSTS of the provider gateway would have to name it",
            path="base_url",
        )

    def names_private(self, host: str, port: int) -> bool:
        """Whether the operator lets `host` have addresses that are not public."""
        return any(matches(entry, host, port) for entry in self._private)

    def check_key(self, provider: str, key: str, url: str) -> None:
        """Refuse to send the key called `key` to the host of `url`, unless it is one of that key's hosts.

        Whether there is such a key is not looked at: nobody finds out which variables a gateway has.

        Raises
        ------
        Forbidden
            The message names the setting that would allow it.
        """
        host, port = _place(url)
        known = {f"{host}:443" for host in hosts_of_key(key)} if url.startswith("https:") else set[str]()
        allowed = sorted({*known, *self._of_keys.get(key, ())})
        if not any(matches(entry, host, port) for entry in allowed):
            listed = ", ".join(allowed) or "none"
            raise Forbidden(
                f"provider {provider!r}: the key {key} may not be sent to {host}:{port} (its hosts: {listed}); "
                "PARACLE_PROVIDER_KEY_HOSTS of the provider gateway would have to allow it",
                path="key",
            )

    def is_named(self, url: str) -> bool:
        """Whether a preset or the operator names the host of `url`: where it leads to is their word."""
        host, port = _place(url)
        return self.names_private(host, port) or host in _OF_PRESETS


_OF_PRESETS: Final = frozenset(
    urlsplit(preset.base_url).hostname for preset in PRESETS.values() if preset.base_url and preset.key
)


def matches(entry: str, host: str, port: int) -> bool:
    """Whether `entry` (`host`, `host:port` or `*.domain`) speaks of `host`."""
    name, wanted = _entry(entry)
    if wanted is not None and wanted != port:
        return False
    if name.startswith("*."):
        label, _, domain = host.partition(".")
        return bool(label) and domain == name[2:]
    return name == host or _same(name, host)


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return (parts.hostname or "").rstrip("."), parts.port or (443 if parts.scheme == "https" else 80)


@lru_cache(maxsize=1_024)
def _entry(entry: str) -> tuple[str, int | None]:
    if is_address(entry):
        return entry.lower(), None
    parts = urlsplit(f"//{entry}")
    return (parts.hostname or "").rstrip("."), parts.port


def _same(one: str, other: str) -> bool:
    name, _ = _entry(one)
    return is_address(name) and is_address(other) and ip_address(name) == ip_address(other)
