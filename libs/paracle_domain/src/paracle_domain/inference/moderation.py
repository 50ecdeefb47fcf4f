"""Texts that a model which is made for that is to judge."""

from __future__ import annotations

from pydantic import Field

from paracle_domain.inference.request import CallId, CallLabels, Priority
from paracle_domain.messages import Plain, Value


class Moderate(Value):
    """Ask a model what it flags in each text.

    It is no message: the gateway asks so for a guard, within the call that is guarded. The rest is as in `Complete`.
    """

    call_id: CallId
    model: Plain = Field(min_length=1, max_length=200)
    texts: tuple[str, ...] = Field(min_length=1)
    priority: Priority = "normal"
    timeout_s: float = Field(gt=0, le=3_600)
    labels: CallLabels = CallLabels()
