"""Messages of a made-up service, `testing`, for tests that need something to say."""

from paracle_domain.messages import Command, Message, Request


class Echoed(Message, type_name="test.echoed"):
    """The text again, and the tenant that it was said in."""

    text: str
    tenant: str = ""


class Echo(Request[Echoed], service="testing", method="echo", answer=Echoed, query=True):
    """Say `text` again."""

    text: str


class Work(Request[Echoed], service="testing", method="work", answer=Echoed):
    """Take a while over `text`."""

    text: str


class Note(Message, type_name="test.note"):
    """Something to publish."""

    text: str
    number: int = 0


class Begin(Command, service="testing", verb="begin"):
    """Begin what `name` names."""

    name: str


class Begun(Message, type_name="test.begun"):
    """It has begun."""

    run_id: str
