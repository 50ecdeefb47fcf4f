"""Makes guards of what manifests say."""

from __future__ import annotations

from functools import partial
from typing import assert_never

from paracle_domain.guard.spec import Guard as GuardSpec
from paracle_domain.guard.spec import JsonSchemaGuard, ModerationGuard, NatsGuard, PiiGuard, RegexGuard
from paracle_provider_gateway.guards.asked import AskedGuard, Asker
from paracle_provider_gateway.guards.local import LocalGuard, json_of_schema, personal_data, regular_expression
from paracle_provider_gateway.guards.moderation import Moderation, Moderator
from paracle_provider_gateway.guards.verdicts import Guard
from paracle_provider_gateway.ports import Outlet


class Guards:
    """Guards of all kinds; those that ask do it with `asker` and `moderator`, and tell `outlet` why they wait."""

    def __init__(self, asker: Asker, moderator: Moderator, outlet: Outlet) -> None:
        self._asker = asker
        self._moderator = moderator
        self._outlet = outlet

    def guard(self, spec: GuardSpec) -> Guard:
        """The one that `spec` describes."""
        match spec:
            case PiiGuard():
                return LocalGuard(partial(personal_data, spec))
            case RegexGuard():
                return LocalGuard(partial(regular_expression, spec))
            case JsonSchemaGuard():
                return LocalGuard(partial(json_of_schema, spec))
            case NatsGuard():
                return AskedGuard(spec, self._asker, self._outlet)
            case ModerationGuard():
                return Moderation(spec, self._moderator)
            case unreachable:
                assert_never(unreachable)
