"""Personal data: what is found, what is not, and what is left when it is taken out."""

from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from paracle_domain.guard.spec import PersonalData
from paracle_provider_gateway.guards.folding import fold
from paracle_provider_gateway.guards.pii import find, redact

ALL = tuple(PersonalData)

FOUND = {
    "email": (
        "john.doe@example.com", "o'brien+tag@mail.example.co.uk", '"john doe"@example.com', "jürgen@müller.de",
        "x@a.xn--p1ai", "ＪＯＨＮ＠ｅｘａｍｐｌｅ．ｃｏｍ", "jo\u200bhn@ex\u00adample.com", "john@example。com",
        "j\u0301ohn@example.com", "john\\u0040example.com", r'\"john doe\"@example.com', r"j\u00fcrgen@m\u00fcller.de",
        "jo\x00hn@exa\x08mple.com",
    ),
    "phone": (
        "+49 170 1234567", "+1 (212) 555-0123", "(212) 555-0123", "212.555.0123", "1-212-555-0123", "0049 170 1234567",
        "030/123 45 67 8", "0612345678", "+٤٩ ١٧٠ ١٢٣٤٥٦٧",
    ),
    "credit_card": (
        "4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111", "4111.1111/1111_1111", "378282246310005",
        "3782 822463 10005", "5555555555554444", "6011 1111 1111 1117", "30569309025904", "3530111333300000",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "41 11 11 11 11 11 11 11", "4111\u20111111\u20131111\u00a01111",
        "４１１１１１１１１１１１１１１１", "٤١١١ ١١١١ ١١١١ ١١١١", "2223003122003222",
        "4\u200b111\u2060111111\ufe0f111111",
        "4\u0301" + "1\u0301" * 15, "4111\\t1111\\t1111\\t1111", r"\ud835\udfdc" + "111\x1b111111111111",
    ),
    "iban": (
        "DE89370400440532013000", "DE89 3704 0044 0532 0130 00", "gb82west12345698765432",
        "GB82-WEST-1234-5698-7654-32",
        "FR14 2004 1010 0505 0001 3M02 606", "NO9386011117947", "ＤＥ８９３７０４００４４０５３２０１３０００",
    ),
    "ip": ("10.0.0.1", "255.255.255.255", "2001:db8::ff00:42:8329", "::1", "fe80::1", "::ffff:192.0.2.1",
           "１０．０．０．１"),
    "us_ssn": ("123-45-6789", "123 45 6789", "123‑45‑6789"),
}  # fmt: skip

NOTHING = (
    "", "Hello, world.", "@someone said: user@localhost", "std::vector<int>, a::b, dead::beef, 12:30:45",
    "1.2.3.4.5", "256.1.1.1", "version 1.2.3", "0.123456789", "3.14159265358979", "2.5e10", "1700000000000",
    "2026-11-26 10:30", "01.02.2026 10:30", "26/11/2026 12", "000-12-3456", "666-12-3456", "123-00-4567", "900-12-3456",
    "4111 1111 1111 1112", "DE88370400440532013000", "XX89370400440532013000", "DE89370400440532013000X",
    "12345", "100,000,000.00", "00:11:22:33:44:55", "[EMAIL] [PHONE] [CREDIT_CARD] [IBAN] [IP] [US_SSN]",
    "😀 emoji 👨‍👩‍👧 and é, 中文。", "550e8400-e29b-41d4-a716-446655440000", '"',
    "DE89\t!", r"C:\news\u00e9\temp", "\\", r"\ud835 \u12", "a\x00b",
    "sha:a086196803b0337857904cd", "id x0612345678", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", "+0 12345678",
)  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
@pytest.mark.parametrize(
    "around", ["{}", "before {} after", "({})", '{{"key": "{}"}}', r'{{"key": "a\n{}\t"}}', "{}, ", "ü{}.\n"]
)
def test_each_kind_is_found_and_taken_out_as_a_whole(kind: str, text: str, around: str):
    if around.startswith("ü"):
        around = around.replace("ü", "ü: ")
    whole = around.format(text)
    clean, counts = redact(whole, ALL)
    assert clean == around.format(PersonalData(kind).placeholder)
    assert counts == {PersonalData(kind): 1}


@pytest.mark.parametrize("text", NOTHING)
def test_other_texts_stay_as_they_are(text: str):
    assert redact(text, ALL) == (text, {})


def test_only_what_is_asked_for_is_taken_out():
    text = "john@example.com from 10.0.0.1"
    assert redact(text, [PersonalData.IP]) == ("john@example.com from [IP]", {PersonalData.IP: 1})


def test_a_number_is_found_between_other_numbers():
    clean, _ = redact("order 12345 4111 1111 1111 1111 5 of 2026", ALL)
    assert clean == "order 12345 [CREDIT_CARD] 5 of 2026"


def test_what_overlaps_is_one():
    assert redact("0049@example.com", ALL) == ("[EMAIL]", {PersonalData.EMAIL: 1})
    assert redact("me@10.0.0.1.example.com", ALL)[0] == "[EMAIL]"


def test_places_are_those_of_the_original():
    text = "\u200b😀\u200d a\u0301: jo\u200bhn@example.com\u200b!"
    (found,) = find(text, ALL)
    assert text[found.start : found.end] == "jo\u200bhn@example.com\u200b"
    assert fold("plain").places is None


def test_a_text_that_is_made_to_defeat_redaction_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PersonalData, "placeholder", "me@example.com")
    with pytest.raises(ValueError, match="some is left each time"):
        redact("john@example.com", ALL)


@pytest.mark.parametrize(
    "text",
    ["a" * 10**5, "1 " * 50_000, "@" * 10**5, "a@" * 50_000, "x@" + "a." * 50_000 + "1", "1.2.3.4" * 15_000,
     ":" * 10**5, r"\u0040" * 20_000, "\\" * 10**5, "a:" * 50_000,
     "DE89 " * 20_000, '"' * 50_000 + "@a.de", "4\u0301" * 50_000, "0" * 10**5],
)  # fmt: skip
def test_no_text_makes_it_hang(text: str):
    assert len(find(text, ALL)) == text.endswith("@a.de")  # quadratic ways would take minutes


PIECES = st.sampled_from(
    [text for texts in FOUND.values() for text in texts]
    + [kind.placeholder for kind in ALL]
    + [
        "@",
        ".",
        ":",
        "::",
        " ",
        "-",
        "+",
        "(",
        "0",
        "00",
        "1",
        "4111",
        "a",
        "[",
        "]",
        "\u200b",
        "\u0301",
        "é",
        "😀",
        "\n",
        '"',
        "\\",
        r"\n",
        r"\u0040",
    ]
)
TEXTS = st.lists(PIECES, max_size=8).map("".join) | st.text(
    alphabet=string.digits + "@.:- +()/abnu[]\"'\\\x00\u200b\u0661", max_size=60
)


@given(TEXTS)
@example("[EMAIL]@x.de")
@example("1::2:3::4")
def test_nothing_is_left_and_once_is_enough(text: str):
    clean, counts = redact(text, ALL)
    assert find(clean, ALL) == []
    assert redact(clean, ALL) == (clean, {})
    assert (clean == text) == (not counts)


@given(TEXTS)
def test_what_is_found_is_in_order_and_apart(text: str):
    found = find(text, ALL)
    places = [place for one in found for place in (one.start, one.end)]
    assert places == sorted(places)
    assert all(0 <= one.start < one.end <= len(text) for one in found)


@given(st.text())
def test_folding_knows_every_place(text: str):
    folded = fold(text)
    places = [folded.span(place, place + 1) for place in range(len(folded.text))]
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert [start for start, _ in places] == sorted({start for start, _ in places})
    assert fold(folded.text).text == folded.text or "\\" in text or not text.isascii()
