"""What a tool may touch. Everything that a backend reads or connects to is asked for here, and refused by default."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import quote as url_quote

from yarl import URL

from paracle_chassis.addresses import is_address, is_guarded, is_public
from paracle_domain.errors import Forbidden, NotFound, quote
from paracle_domain.tool.spec import Execution, Permissions

SECRET_PREFIX: Final = "PARACLE_SECRET_"  # noqa: S105  # the prefix of variable names, no secret
_SECRET: Final = re.compile(r"\$\{([A-Z][A-Z0-9_]{0,127})\}")


@dataclass(frozen=True, slots=True)
class Grants:
    """The permissions of one tool, on this machine.

    `files_root` bounds all paths, whatever a manifest grants; `environment` is where secrets come from.
    """

    tool: str
    permissions: Permissions
    files_root: Path
    environment: Mapping[str, str]

    def path(self, text: str) -> Path:
        """The real path of `text`, if it lies in a granted folder; symbolic links are followed first.

        Relative paths are relative to the files root, or to a granted folder. Open what this gives with `rooted`, which
        refuses links that were put there meanwhile.

        Raises
        ------
        Forbidden
            If it lies outside, or no folder is granted.
        NotFound
            If it is granted and does not exist, or can be no path.
        """
        granted, found, first = self._granted(text, self.roots())
        if found is not None:
            return found
        if first in granted:
            raise NotFound(f"{quote(text)} does not exist", path="path")
        listed = ", ".join((*self.permissions.paths, *self.permissions.write_paths)) or "none"
        raise Forbidden(f"tool {self.tool!r} may not read {quote(text)}; permissions.paths: {listed}", path="path")

    def writable(self, text: str) -> Path:
        """The real path of `text`, a file that may be written and need not exist.

        Raises
        ------
        Forbidden
            If it lies in no folder of `permissions.write_paths`, or is one of them.
        """
        roots = self.roots(write=True)
        granted, found, first = self._granted(text, roots)
        if found is None and granted:  # new, where its folder is; new folders only where the whole path says so
            found = next((path for path in granted if path == first or path.parent.is_dir()), None)
        if found is not None and found not in roots:
            return found
        listed = ", ".join(self.permissions.write_paths) or "none"
        message = f"tool {self.tool!r} may not write {quote(text)}; permissions.write_paths: {listed}"
        raise Forbidden(message, path="path")

    def inside(self, path: Path) -> bool:
        """Whether the real path of `path` lies in a granted folder."""
        real = path.resolve()
        return any(real.is_relative_to(root) for root in self.roots())

    def roots(self, *, write: bool = False) -> list[Path]:
        """The real paths of the folders that it may read, or write; none outside the files root."""
        bound = self.bound
        named = self.permissions.write_paths if write else (*self.permissions.paths, *self.permissions.write_paths)
        resolved = [(bound / Path(root)).resolve() for root in named]
        return [root for root in resolved if root.is_relative_to(bound)]

    @property
    def bound(self) -> Path:
        """The real path of the files root."""
        return self.files_root.resolve()

    def execution(self) -> Execution:
        """Within what it may run commands.

        Raises
        ------
        Forbidden
            If it may run none.
        """
        if self.permissions.execute is None:
            message = f"tool {self.tool!r} may not run commands; permissions.execute: {{}} would allow it"
            raise Forbidden(message, path="permissions.execute")
        return self.permissions.execute

    def _granted(self, text: str, roots: Sequence[Path]) -> tuple[list[Path], Path | None, Path]:
        """What `text` may mean below `roots`; the first of it that exists; what it means below the files root."""
        if "\x00" in text:
            raise Forbidden(f"path {quote(text)} holds a NUL character", path="path")
        try:
            candidates = [(base / text).resolve() for base in (self.files_root, *roots)]
            granted = [path for path in candidates if any(path.is_relative_to(root) for root in roots)]
            found = next((path for path in granted if path.exists()), None)
        except (OSError, RuntimeError, ValueError) as error:  # a name that is too long, links that lead in a circle
            raise NotFound(f"{quote(text)} leads nowhere: {type(error).__name__}", path="path") from error
        return granted, found, candidates[0]

    def url(self, url: URL) -> None:
        """Whether the tool may connect to the host of `url`. Its addresses are checked when it is resolved.

        Raises
        ------
        Forbidden
            If the host is not granted, or is an address that is not public.
        """
        host = (url.raw_host or "").lower().rstrip(".")
        known = {_entry(entry) for entry in self.permissions.hosts}
        if url.scheme not in {"http", "https"} or not host or not {(host, None), (host, url.port)} & known:
            listed = ", ".join(self.permissions.hosts) or "none"
            shown = f"[{host}]" if ":" in host else host
            raise Forbidden(
                f"tool {self.tool!r} may not connect to {shown}:{url.port}; permissions.hosts: {listed}", path="url"
            )
        if is_address(host):
            self.address(host, host)

    def address(self, host: str, address: str) -> None:
        """Whether `address`, which `host` resolved to, may be connected to.

        Raises
        ------
        Forbidden
            If it is private, loopback, link-local or otherwise not public, and the tool may not use private networks;
            or one where no service of the tool's can be, unless the tool's hosts name it as it is.
        """
        if is_public(address):
            return
        what = f"tool {self.tool!r} may not connect to {host}: {address} is"
        if not self.permissions.private_networks:
            message = f"{what} not a public address; permissions.private_networks: true would allow it"
            raise Forbidden(message, path="url")
        if is_guarded(address) and not any(_same(name, address) for name, _ in map(_entry, self.permissions.hosts)):
            message = f"{what} link-local, multicast, unspecified or a metadata service; permissions.hosts must name it"
            raise Forbidden(message, path="url")

    def worker(self, tool: str) -> None:
        """Refuse to ask workers for `tool`, unless it is granted."""
        if tool not in self.permissions.workers:
            listed = ", ".join(self.permissions.workers) or "none"
            message = f"tool {self.tool!r} may not ask workers for {quote(tool)}; permissions.workers: {listed}"
            raise Forbidden(message, path="backend.tool")

    def mcp_server(self, name: str) -> None:
        """Refuse to ask the MCP server `name`, unless it is granted."""
        if name not in self.permissions.mcp_servers:
            listed = ", ".join(self.permissions.mcp_servers) or "none"
            message = f"tool {self.tool!r} may not ask MCP server {quote(name)}; permissions.mcp_servers: {listed}"
            raise Forbidden(message, path="backend.server")

    def fill_secrets(self, text: str) -> str:
        """`text` with `${NAME}` replaced by that secret.

        Raises
        ------
        Forbidden
            If the tool may not use the secret.
        NotFound
            If the environment does not hold it.
        """
        return _SECRET.sub(lambda match: self.secret(match[1]), text)

    def secret(self, name: str) -> str:
        """The value of the secret `name`. Errors name it; nothing shows its value."""
        if name not in self.permissions.secrets:
            listed = ", ".join(self.permissions.secrets) or "none"
            raise Forbidden(f"tool {self.tool!r} may not use secret {name}; permissions.secrets: {listed}")
        if SECRET_PREFIX + name not in self.environment:
            raise NotFound(f"secret {name} is not set: give the agent runtime {SECRET_PREFIX}{name}")
        return self.environment[SECRET_PREFIX + name]

    def redact(self, text: str) -> str:
        """`text` without the values of the tool's secrets, which a server may echo, also as JSON or URLs spell them."""
        return redact(text, self.environment, self.permissions.secrets)


def redact(text: str, environment: Mapping[str, str], names: Iterable[str] | None = None) -> str:
    """`text` without the values of the secrets `names` (all that there are, if absent) of `environment`."""
    held = environment if names is None else [SECRET_PREFIX + name for name in names]
    for variable in held:
        value = environment.get(variable)
        if value and variable.startswith(SECRET_PREFIX):
            for spelled in _spellings(value):
                text = text.replace(spelled, f"[secret {variable.removeprefix(SECRET_PREFIX)}]")
    return text


def _spellings(secret: str) -> set[str]:
    """How a server may echo it: as JSON and URLs write it, and as HTTP's Latin-1 reads a header in UTF-8."""
    read = (secret, secret.encode().decode("latin-1"))
    return {one for text in read for one in (text, json.dumps(text)[1:-1], url_quote(text, safe=""))}


@lru_cache(maxsize=4_096)
def _entry(entry: str) -> tuple[str, int | None]:
    """An entry of `permissions.hosts` as host (as DNS spells it) and port; what is none matches no host."""
    if is_address(entry):
        return entry.lower(), None
    try:
        url = URL(f"//{entry}")
        return (url.raw_host or "").lower().rstrip("."), url.explicit_port
    except ValueError:
        return "", None


def _same(name: str, address: str) -> bool:
    return is_address(name) and ip_address(name) == ip_address(address)
