"""Whoever watches a task is told why a model call of it waits, or of an agent that it turned to, and till when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from paracle_domain.envelope import Context
from paracle_domain.errors import ParacleError
from paracle_domain.inference.embedding import ModelCall
from paracle_domain.inference.request import Complete
from paracle_domain.inference.retrying import Retrying
from paracle_provider_gateway.ports import Outlet

WORTH_TELLING_S: Final = 1.0
"""Waits that are shorter are nobody's concern."""
LOOK_AGAIN_S: Final = 0.2
"""After how long it is seen whether somebody has come to serve a guard."""


async def tell_of_retry(
    outlet: Outlet, request: ModelCall, context: Context, error: ParacleError, tried: int, after_s: float
) -> None:
    """Tell that `request`, sent `tried` times so far, waits because of `error`, and is tried in `after_s` seconds."""
    if not isinstance(request, Complete):
        return
    at = datetime.now(UTC) + timedelta(seconds=after_s)
    told = Retrying(call_id=request.call_id, error=error.to_info(), tried=tried, at=at)
    if request.stream_to is not None:
        await outlet.publish(request.stream_to, told, context)
    if request.waits_to is not None:
        theirs = told.model_copy(update={"agent": request.labels.agent or request.model})
        await outlet.publish(request.waits_to, theirs, context)
