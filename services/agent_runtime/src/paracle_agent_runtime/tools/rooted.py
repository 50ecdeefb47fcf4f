"""Files opened step by step below a root, each step refusing symbolic links.

A permission check resolves links and judges the real path; whoever opens that path later by its name would follow what
was put in its place meanwhile. Here each folder on the way is opened by itself, relative to the one before it, so what
is opened is what was judged, or nothing.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from paracle_domain.errors import Forbidden, InputInvalid, NotFound, PayloadTooLarge, ToolFailed, quote

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def folder(root: Path, path: Path, *, make: bool = False) -> Iterator[int]:
    """The descriptor of the folder `path`, which is a real path at or below `root`; `make` what is missing of it."""
    with _told(path):
        here = os.open(root, _FOLDER)
    try:
        for name in path.relative_to(root).parts:
            if make:
                with _told(path), suppress(FileExistsError):
                    os.mkdir(name, dir_fd=here)
            here, above = _open(path, _FOLDER, here, name=name), here
            os.close(above)
        yield here
    finally:
        os.close(here)


def open_file(root: Path, path: Path) -> BinaryIO:
    """The file `path`, a real path below `root`, for reading. Devices, pipes and sockets are no files."""
    with folder(root, path.parent) as above:
        handle = _open(path, _READ, above)
    return os.fdopen(_regular(handle, path), "rb")


def replace_file(root: Path, path: Path, content: bytes, *, overwrite: bool) -> None:
    """Write `path` as a whole: it has its old content or all of the new one. Other names of the old one keep that."""
    with folder(root, path.parent, make=True) as above:
        draft = f".{path.name[:100]}.{secrets.token_hex(8)}"
        handle = _open(path, _NEW, above, name=draft)
        try:
            with _told(path), os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _put(above, draft, path, overwrite=overwrite)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(draft, dir_fd=above)


def append_file(root: Path, path: Path, content: bytes, *, most: int) -> int:
    """Add `content` to `path`, which may be new and has at most `most` bytes then; how many it has."""
    with folder(root, path.parent, make=True) as above:
        handle = _open(path, _APPEND, above)
    with os.fdopen(_regular(handle, path), "ab") as file:
        found = os.fstat(file.fileno())
        if found.st_nlink != 1:
            raise Forbidden(f"{quote(path.name)} has several names (hard links); one may lie elsewhere", path="path")
        if found.st_size + len(content) > most:
            raise PayloadTooLarge(f"{quote(path.name)} would have more than {most:,} bytes", path="path")
        with _told(path):
            file.write(content)
            file.flush()
        return found.st_size + len(content)


def _put(above: int, draft: str, path: Path, *, overwrite: bool) -> None:
    with _told(path):
        if overwrite:
            os.rename(draft, path.name, src_dir_fd=above, dst_dir_fd=above)
            return
        try:
            os.link(draft, path.name, src_dir_fd=above, dst_dir_fd=above, follow_symlinks=False)
        except FileExistsError as error:
            message = f"{quote(path.name)} exists; overwrite: true would replace it"
            raise InputInvalid(message, path="path") from error


def _open(path: Path, flags: int, above: int, *, name: str | None = None) -> int:
    with _told(path):
        return os.open(name or path.name, flags, 0o644, dir_fd=above)


def _regular(handle: int, path: Path) -> int:
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ToolFailed(f"{quote(path.name)} is no regular file", path="path")
    return handle


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the system refuses, as an error of ours."""
    try:
        yield
    except OSError as error:
        raise _failed(path, error) from error


def _failed(path: Path, error: OSError) -> Forbidden | NotFound | ToolFailed:
    shown = quote(path.name)
    if error.errno == errno.ELOOP or (error.errno == errno.ENOTDIR and _linked(path)):
        return Forbidden(f"the way to {shown} became a symbolic link while it was used", path="path")
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return NotFound(f"{shown} does not exist", path="path")
    return ToolFailed(f"{shown} cannot be used: {error.strerror}", path="path")


def _linked(path: Path) -> bool:
    """Whether a folder on the way to `path` is a link; opening one as a folder fails as if it were none."""
    return any(one.is_symlink() for one in (path, *path.parents))
