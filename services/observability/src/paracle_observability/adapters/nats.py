"""The stream of dead letters."""

from __future__ import annotations

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from paracle_chassis import provisioning
from paracle_chassis.dead_letters import Letter, id_of
from paracle_chassis.link import Link
from paracle_domain.envelope import MSG_ID
from paracle_domain.errors import Unavailable
from paracle_domain.subjects import DEADLETTERS


class NatsStreamCopies:
    """`StreamCopies` on JetStream."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def delete(self, letter: Letter) -> None:
        """See `StreamCopies.delete`. A stream that was made anew counts from 1 again, so its id is looked at first."""
        try:
            found = await self._link.jetstream.get_msg(DEADLETTERS, seq=letter.place)
        except NotFoundError:
            return
        except (NatsError, TimeoutError) as error:
            raise Unavailable(f"the stream of dead letters does not answer ({type(error).__name__})") from error
        key = (found.headers or {}).get(MSG_ID)
        if key is None or id_of(key) == letter.about.id:
            await provisioning.delete_message(self._link.client, DEADLETTERS, letter.place)
