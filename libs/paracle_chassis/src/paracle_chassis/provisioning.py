"""Making streams, consumers and buckets what the topology says, over JetStream's JSON API.

Used by the `provision` command and by mailboxes that find theirs gone. Idempotent: what is right already is left alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, override

from nats.errors import Error as NatsError

from paracle_chassis import topology
from paracle_chassis.topology import CLAIMS_BUCKET, CLAIMS_TTL_S, PLAIN, ConsumerSpec, Durability, StreamSpec
from paracle_domain import subjects
from paracle_domain.errors import Conflict, NotFound, ParacleError, Unavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

_NS: Final = 1_000_000_000
_API_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Change:
    """What provisioning did to one thing."""

    what: str
    did: str

    @override
    def __str__(self) -> str:
        return f"{self.what}: {self.did}"


async def ensure_stream(client: Client, spec: StreamSpec, durability: Durability = PLAIN) -> Change:
    """Create the stream, or update what may be updated.

    Raises
    ------
    Conflict
        If it is there with something that only a new stream can have.
    """
    wanted = spec.config(durability)
    what = f"stream {spec.name}"
    found = await _info(client, f"STREAM.INFO.{spec.name}")
    if found is None:
        await _ask(client, f"STREAM.CREATE.{spec.name}", wanted)
        return Change(what, "created")
    changes = topology.differing(wanted, found)
    if not changes:
        return Change(what, "as it should be")
    if fixed := topology.unchangeable(changes):
        shown = ", ".join(f"{key} is {changes[key][0]!r}, wanted {changes[key][1]!r}" for key in fixed)
        raise Conflict(f"{what} cannot be changed in place ({shown}); let it run empty, delete it and provision again")
    await _ask(client, f"STREAM.UPDATE.{spec.name}", found | wanted)
    return Change(what, f"updated {', '.join(sorted(changes))}")


async def stream_names(client: Client) -> frozenset[str]:
    """Those of our streams that are there."""
    answer = await _ask(client, "STREAM.NAMES", {"subject": f"{subjects.PREFIX}.>"})
    return frozenset(answer.get("streams") or ())


async def ensure_consumer(client: Client, spec: ConsumerSpec, *, update: bool = True) -> Change:
    """Create the consumer, or (`update`) change it.

    Raises
    ------
    NotFound
        If its stream is not there.
    """
    wanted = spec.config()
    what = f"consumer {spec.durable} of {spec.stream}"
    found = await _info(client, f"CONSUMER.INFO.{spec.stream}.{spec.durable}")
    changes = topology.differing(wanted, found or {})
    if found is not None and not (update and changes):
        return Change(what, "as it should be")
    await _ask(client, f"CONSUMER.CREATE.{spec.stream}.{spec.durable}", {"stream_name": spec.stream, "config": wanted})
    return Change(what, "created" if found is None else f"updated {', '.join(sorted(changes))}")


async def ensure_bucket(client: Client, durability: Durability = PLAIN) -> Change:
    """Create the object store of claims."""
    what = f"bucket {CLAIMS_BUCKET}"
    name = f"OBJ_{CLAIMS_BUCKET}"
    if await _info(client, f"STREAM.INFO.{name}") is not None:
        return Change(what, "as it should be")
    config = {
        "name": name,
        "subjects": [f"$O.{CLAIMS_BUCKET}.C.>", f"$O.{CLAIMS_BUCKET}.M.>"],
        "retention": "limits",
        "storage": "file",
        "discard": "new",
        "max_age": CLAIMS_TTL_S * _NS,
        "num_replicas": durability.replicas,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "max_msgs_per_subject": -1,
        "max_consumers": -1,
        "max_bytes": -1,
        "max_msgs": -1,
        "max_msg_size": -1,
    }
    await _ask(client, f"STREAM.CREATE.{name}", config)
    return Change(what, "created")


async def delete_message(client: Client, stream: str, seq: int) -> None:
    """Delete one message of `stream`; nothing happens if it is gone already."""
    try:
        await _ask(client, f"STREAM.MSG.DELETE.{stream}", {"seq": seq, "no_erase": True})
    except (NotFound, Conflict) as error:  # of a message that is not there the server says 400 or 404
        if "not found" not in str(error) and "no message" not in str(error):
            raise


async def sizes(client: Client, stream: str, subject: str) -> dict[str, int]:
    """How many messages of `stream` there are on each subject that matches `subject`."""
    found: dict[str, int] = {}
    while True:
        page = {"subjects_filter": subject, "offset": len(found)}
        state = (await _ask(client, f"STREAM.INFO.{stream}", page))["state"]
        found |= state.get("subjects") or {}
        if len(found) >= state.get("num_subjects", 0) or not state.get("subjects"):
            return found


async def consumers(client: Client, stream: str) -> list[dict[str, Any]]:
    """What JetStream says of all consumers of `stream`."""
    found: list[dict[str, Any]] = []
    while True:
        answer = await _ask(client, f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        found += answer.get("consumers") or []
        if len(found) >= answer.get("total", 0) or not answer.get("consumers"):
            return found


async def account_info(client: Client) -> dict[str, Any]:
    """What JetStream says of the account; `Unavailable` until it is up."""
    return await _ask(client, "INFO", None)


async def _info(client: Client, path: str) -> dict[str, Any] | None:
    """The config of what is at `path`; `None` if nothing is."""
    try:
        answer = await _ask(client, path, None)
    except NotFound:
        return None
    config: dict[str, Any] = answer["config"]
    return config


async def _ask(client: Client, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
    payload = b"" if body is None else json.dumps(body).encode()
    try:
        message = await client.request(f"$JS.API.{path}", payload, timeout=_API_TIMEOUT_S)
    except (NatsError, OSError, TimeoutError) as error:
        raise Unavailable(
            f"JetStream does not answer ({type(error).__name__}); is it enabled on the server?"
        ) from error
    answer: dict[str, Any] = json.loads(message.data)
    if "error" in answer:
        raise _refusal(path, answer["error"])
    return answer


def _refusal(path: str, error: dict[str, Any]) -> ParacleError:
    said = f"JetStream refused {path}: {error.get('description', error)}"
    match error.get("code"):
        case 404:
            return NotFound(said)
        case 503:
            return Unavailable(said)
        case _:
            return Conflict(said)
