"""Who calls. Every route that acts takes `Caller`; how callers prove who they are is decided here alone.

For now nobody has to: the API listens on loopback only, and whoever can reach it is `anonymous` of the default tenant.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from paracle_domain.envelope import ANONYMOUS, Context


async def caller(request: Request) -> Context:
    """On whose behalf the request is made, and the trace that it belongs to."""
    return Context(
        tenant=request.app.state.settings.tenant,
        principal=ANONYMOUS,
        traceparent=request.scope.get("paracle.traceparent"),
    )


Caller = Annotated[Context, Depends(caller)]
