"""Dead letters on the wire: how a message becomes one, is read again, and goes out again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paracle_chassis.dead_letters import Letter, dead_headers
from paracle_chassis.delivery import Delivery
from paracle_chassis.inlet import Incoming
from paracle_chassis.receipts import NoReceipt, Place
from paracle_domain import dead_letters, subjects
from paracle_domain.envelope import Envelope
from paracle_domain.errors import Conflict, InvalidInput
from paracle_domain.ids import is_id

RUN = "run_01JDZ7T6C4W2V9M3N5K8Q0XHRB"
STORED = 1_767_225_600_000_000_000
PLACE = Place(subjects.RESULTS, "orchestrator", 8, 17, STORED)


def message(subject: str = subjects.result("acme", RUN), body: bytes = b"{}", **headers: str) -> Delivery:
    return sent({name.replace("_", "-"): value for name, value in headers.items()}, subject, body)


def sent(headers: dict[str, str], subject: str = subjects.result("acme", RUN), body: bytes = b"{}") -> Delivery:
    return Delivery(
        Incoming(subject, "", body, headers=headers),
        NoReceipt(),
        deliveries=8,
        stream=PLACE.stream,
        stream_seq=PLACE.seq,
        stored_ns=STORED,
    )


def dead(original: Delivery, *, service: str = "orchestrator", tenant: str = "acme", place: Place = PLACE) -> Delivery:
    """What the stream of dead letters delivers once `original` was buried."""
    headers = dead_headers(original, place, Conflict("not\nthis one"))
    return Delivery(
        Incoming(subjects.dlq(tenant, service), "", original.body, headers=headers),
        NoReceipt(),
        stream=subjects.DEADLETTERS,
        stream_seq=3,
        stored_ns=STORED + 5_000_000_000,
    )


def test_a_letter_says_what_it_was_and_why_it_died():
    original = message(body=b'{"x":1}', ce_id="m-1", ce_type="task.result", paracle_principal="ann", Nats_Msg_Id="m-1")
    letter = Letter.read(dead(original))
    about = letter.about
    assert is_id(about.id, "dead")
    assert (about.service, about.code, about.reason, about.tries) == ("orchestrator", "conflict", "not this one", 8)
    assert (about.subject, about.message_id, about.type) == (subjects.result("acme", RUN), "m-1", "task.result")
    assert (about.run_id, about.principal, about.size) == (RUN, "ann", 7)
    assert (about.stream, about.stream_seq, letter.place) == ("RESULTS", 17, 3)
    assert letter.headers == {"ce-id": "m-1", "ce-type": "task.result", "paracle-principal": "ann"}
    assert not letter.told


def test_the_same_death_has_the_same_id():
    first, again = dead(message()), dead(message())
    assert Letter.read(first).about.id == Letter.read(again).about.id
    other = dead(message(), place=PLACE._replace(seq=18))
    assert Letter.read(other).about.id != Letter.read(first).about.id


def test_a_redriven_message_is_the_same_for_its_reader_and_another_for_the_stream():
    original = message(ce_id="m-1", Nats_Msg_Id="m-1", paracle_reply_to="_INBOX.1", paracle_causation_id="m-0", own="x")
    letter = Letter.read(dead(original))
    headers = letter.redriven().headers()
    assert headers["Nats-Msg-Id"] == letter.about.id
    assert "paracle-reply-to" not in headers
    assert headers["own"] == "x"
    back = Envelope.read(headers, tenant="acme", default_id="?", default_type="?")
    assert (back.id, back.context.causation_id) == ("m-1", "m-0")
    again = Letter.read(dead(sent(headers)))
    assert again.about.redriven_from == letter.about.id
    assert again.about.message_id == "m-1"


def test_a_bare_message_keeps_the_id_that_it_was_given():
    original = message()
    letter = Letter.read(dead(original))
    assert letter.about.message_id == original.envelope.id == f"RESULTS.17.{STORED}"
    assert letter.redriven().headers()["ce-id"] == original.envelope.id


@pytest.mark.parametrize(
    "subject",
    [
        None,
        "nonsense",
        subjects.result("evil", RUN),
        subjects.rpc("acme", "registry", "get"),
        subjects.dlq("acme", "orchestrator"),
    ],
)
def test_what_has_no_home_in_its_tenant_is_not_published_again(subject: str | None):
    forged = {} if subject is None else {dead_letters.DEAD_SUBJECT: subject}
    message = Incoming(subjects.dlq("acme", "orchestrator"), "", b"", headers=forged)
    delivery = Delivery(message, NoReceipt(), stored_ns=STORED)
    with pytest.raises(InvalidInput, match="drop it"):
        Letter.read(delivery).redriven()


def test_headers_that_a_client_forged_do_not_survive_its_death():
    original = message(paracle_dead_subject=subjects.cmd("acme", "orchestrator", "start_run"))
    assert Letter.read(dead(original)).about.subject == original.subject


def test_a_letter_that_cannot_be_read_says_where_it_came_from_at_first():
    first = dead(message(ce_id="m-1"))
    place = Place(subjects.DEADLETTERS, "observability", 1, 3, STORED)
    again = Letter.read(dead(first, service="observability", place=place)).about
    assert (again.subject, again.message_id, again.code) == (subjects.result("acme", RUN), "m-1", "conflict")
    assert again.service == "observability"


@pytest.mark.parametrize(
    ("subject", "body", "headers"),
    [
        (subjects.task("acme", "agents"), b"not json", {"paracle_correlation_id": RUN}),
        (subjects.cmd("acme", "orchestrator", "cancel_run"), b'{"run_id":"%b"}' % RUN.encode(), {}),
        (subjects.result("acme", RUN), b'{"run_id":"run_other"}', {}),
    ],
)
def test_the_run_is_that_of_the_subject_the_story_or_the_body(subject: str, body: bytes, headers: dict[str, str]):
    assert Letter.read(dead(message(subject, body, **headers))).about.run_id == RUN


@pytest.mark.parametrize("body", [b'{"run_id"', b'["run_id"]', b'{"run_id":7}', b'{"run_id":"x"}', b"[" * 100_000])
def test_a_body_without_a_run_has_none(body: bytes):
    assert Letter.read(dead(message(subjects.task("acme", "agents"), body))).about.run_id is None


async def test_a_failure_that_was_told_is_marked():
    original = message()
    await original.term(Conflict("no"), told=True)
    assert Letter.read(dead(original)).told


NAMES = st.sampled_from(
    ["Nats-Msg-Id", "ce-id", "ce-type", "paracle-redriven-from", "paracle-correlation-id", *vars(dead_letters).values()]
)
HEADERS = st.dictionaries(
    NAMES.filter(lambda name: isinstance(name, str) and name[:1].isalpha()),
    st.text(st.characters() | st.characters(categories=["Cs"]), max_size=40),
)


@given(HEADERS, st.binary(max_size=200), st.integers(0, 2**63 - 1))
def test_anything_can_be_read(headers: dict[str, str], body: bytes, stored_ns: int):
    message = Incoming(subjects.dlq("acme", "x"), "", body, headers=headers)
    letter = Letter.read(Delivery(message, NoReceipt(), stored_ns=stored_ns))
    assert "\x00" not in letter.about.model_dump_json()
    assert is_id(letter.about.id, "dead")
