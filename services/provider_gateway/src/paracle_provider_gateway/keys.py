"""Keys by their names: variables of the environment, and files that are read anew when they change."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from paracle_domain.errors import NotFound
from paracle_domain.provider.spec import KeyRef

type Supply = Callable[[], SecretStr | None]

FILE_SUFFIX: Final = "_FILE"
_LONGEST: Final = 64 * 1024


@dataclass(slots=True)
class KeyFile:
    """A key in a file. It is looked at for every request, and read if it is another one than before."""

    path: Path
    name: str
    _seen: tuple[int, int, int] | None = None
    _key: SecretStr | None = None

    def __call__(self) -> SecretStr:
        """The key as it is now.

        Raises
        ------
        NotFound
            If there is none: one that was taken away is used no longer.
        """
        try:
            found = self.path.stat()
            seen = (found.st_mtime_ns, found.st_ino, found.st_size)
            if self._key is None or seen != self._seen:
                self._key, self._seen = self._read(), seen
        except OSError as error:
            self._key = None
            raise NotFound(f"there is no key {self.name}: its file cannot be read", path="key") from error
        return self._key

    def _read(self) -> SecretStr:
        with self.path.open("rb") as file:
            text = file.read(_LONGEST).decode(errors="replace").strip()
        if not text or not text.isascii() or not text.isprintable():
            raise NotFound(f"there is no key {self.name}: its file holds none (one line of ASCII)", path="key")
        return SecretStr(text)


class KeyRing:
    """All keys that the operator gave the gateway.

    Parameters
    ----------
    environment
        A variable `NAME` holds a key, or `NAME_FILE` the path of a file with it.
    folder
        `{folder}/{tenant}/{name}` is a tenant's key, `{folder}/{name}` everybody's.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> None:
        self._environment = environment
        self._folder = folder

    def supply(self, ref: KeyRef, tenant: str) -> Supply:
        """Gives the key that `ref` names, as it is when it is asked for; it raises `NotFound` if there is none then."""
        return self.variable(ref.env) if ref.env is not None else self._file(ref.name, tenant)

    def variable(self, name: str) -> Supply:
        """Gives the key in a variable, or in the file that the variable `{name}_FILE` names."""
        path = self._environment.get(name + FILE_SUFFIX)
        if path:
            return KeyFile(Path(path), name)
        return lambda: self._variable(name)

    def _variable(self, name: str) -> SecretStr:
        value = self._environment.get(name, "").strip()
        if not value:
            raise NotFound(f"there is no key {name}: set the variable for the provider gateway", path="key")
        return SecretStr(value)

    def _file(self, name: str, tenant: str) -> Supply:
        if self._folder is None:
            return lambda: self._no_folder(name)
        own, shared = KeyFile(self._folder / tenant / name, name), KeyFile(self._folder / name, name)
        return lambda: own() if own.path.is_file() else shared()

    def _no_folder(self, name: str) -> SecretStr:
        raise NotFound(f"there is no key {name}: the provider gateway has no PARACLE_PROVIDER_KEYS_DIR", path="key")
