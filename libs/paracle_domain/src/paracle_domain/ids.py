"""Prefixed ULIDs: every id says what it names (`run_01J…`) and sorts by the time it was made.

Two ways to make one: `new_id` draws fresh randomness and is for the edges, where something begins;
`derive_id` computes an id from the ids it follows from and is for the pure machines, which must give
the same answer every time that they are asked (a replay, a redelivery, another replica).
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, Final, Literal, get_args

from pydantic import StringConstraints
from ulid import ULID
from ulid.base32 import decode, encode

type IdKind = Literal["run", "task", "call", "eff", "msg", "evt", "ses", "tok", "wrk", "apr", "dead", "rep", "grd"]

KINDS: Final[frozenset[str]] = frozenset(get_args(IdKind.__value__))
_SHAPE: Final = re.compile(r"[a-z]{3,4}_[0-7][0-9A-HJKMNP-TV-Z]{25}")

_DIGITS: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(one + other for one in _DIGITS for other in _DIGITS)

RunId = Annotated[str, StringConstraints(pattern=r"^run_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
ApprovalId = Annotated[str, StringConstraints(pattern=r"^apr_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
DeadLetterId = Annotated[str, StringConstraints(pattern=r"^dead_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
TaskId = Annotated[str, StringConstraints(pattern=r"^task_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
WorkerId = Annotated[str, StringConstraints(pattern=r"^wrk_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]


def new_id(kind: IdKind) -> str:
    """A fresh id of `kind`: 48 bits of milliseconds, 80 bits of randomness."""
    return f"{kind}_{ULID()}"


def derive_id(kind: IdKind, root: str, *parts: str | int) -> str:
    """The id of `kind` that follows from `root` and `parts`: the same arguments, the same id.

    It keeps the time of `root`, so that what a run caused sorts after it; the other 80 bits are BLAKE2b of
    all arguments. `root` must itself be a prefixed ULID.
    """
    text = "\x1f".join(map(str, (kind, root, *parts)))
    time = root.rpartition("_")[2][:10]
    return f"{kind}_{time}{_tail(hashlib.blake2b(text.encode(), digest_size=10).digest())}"


def is_id(text: str, kind: IdKind | None = None) -> bool:
    """Whether `text` is a well-formed id (of `kind`, if one is given)."""
    prefix = text.partition("_")[0]
    return prefix in KINDS and kind in (None, prefix) and _SHAPE.fullmatch(text) is not None


def parse_id(text: str, kind: IdKind) -> str:
    """`text`, if it is a well-formed id of `kind`.

    Raises
    ------
    ValueError
        If it is none.
    """
    if not is_id(text, kind):
        message = f"{text!r} is no id of kind {kind}"
        raise ValueError(message)
    return text


def id_from_key(kind: IdKind, key: str, time_ms: int = 0) -> str:
    """The id that an idempotency key stands for: the same key names the same thing for ever.

    A key carries no time, so that of the id is `time_ms`, which must belong to the key; with 0 the id sorts before
    all others.
    """
    digest = hashlib.blake2b(f"{kind}\x1f{key}".encode(), digest_size=10).digest()
    return f"{kind}_{encode(time_ms.to_bytes(6, 'big') + digest)}"


def _tail(ten: bytes) -> str:
    """Ten bytes in base 32. Every attempt of every step is named this way, so it goes two characters at a time."""
    bits = int.from_bytes(ten)
    return "".join([_PAIRS[bits >> shift & 1023] for shift in range(70, -1, -10)])


def ulid_time_ms(identifier: str) -> int:
    """Milliseconds since the epoch at which `identifier` (a prefixed ULID) was made."""
    return int.from_bytes(bytes(decode(identifier.rpartition("_")[2]))[:6], "big")
