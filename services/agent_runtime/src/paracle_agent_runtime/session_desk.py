"""Looking at sessions, and forgetting them."""

from __future__ import annotations

from paracle_agent_runtime.ports import SessionShelf
from paracle_domain.envelope import Context
from paracle_domain.errors import Conflict, NotFound, quote
from paracle_domain.messages import Done
from paracle_domain.task.sessions import (
    DeleteSession,
    GetSession,
    ListSessions,
    SessionPage,
    SessionSummary,
    SessionView,
)


class SessionDesk:
    """The sessions of whoever asks; those of other tenants are not there."""

    def __init__(self, shelf: SessionShelf) -> None:
        self._shelf = shelf

    async def list_sessions(self, request: ListSessions, call: Context) -> SessionPage:
        """A page of them, newest first."""
        found = await self._shelf.list(call.tenant, request.cursor, request.limit + 1)
        shown = tuple(found[: request.limit])
        return SessionPage(sessions=shown, next_cursor=shown[-1].session_id if len(found) > len(shown) else None)

    async def get_session(self, request: GetSession, call: Context) -> SessionView:
        """One with a page of its turns. Raises `NotFound`."""
        session = await self._known(call.tenant, request.session_id)
        found = await self._shelf.turns(call.tenant, request.session_id, request.after, request.limit + 1)
        shown = tuple(found[: request.limit])
        more = shown[-1].turn if len(found) > len(shown) else None
        recap = await self._shelf.recap(call.tenant, request.session_id)
        return SessionView(session=session, recap=recap, turns=shown, next_after=more)

    async def delete_session(self, request: DeleteSession, call: Context) -> Done:
        """Forget it. Raises `NotFound`, or `Conflict` while a turn is open."""
        if not await self._shelf.delete(call.tenant, request.session_id):
            await self._known(call.tenant, request.session_id)
            raise Conflict(f"a turn of session {request.session_id} is open; wait for it, or cancel its run")
        return Done()

    async def _known(self, tenant: str, session: str) -> SessionSummary:
        found = await self._shelf.get(tenant, session)
        if found is None:
            raise NotFound(f"there is no session {quote(session)}", path="session_id")
        return found
