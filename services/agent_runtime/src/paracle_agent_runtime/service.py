"""Tasks come in, are worked on side by side, and go out as results.

A delivery stays unacked until its task's result is published, and says that it is in progress meanwhile: whatever
happens to this process, the task comes again, here or elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, Self

from paracle_agent_runtime import telemetry
from paracle_agent_runtime.actor import TaskActor
from paracle_agent_runtime.cancelling import Canceller
from paracle_agent_runtime.entries import Entry
from paracle_agent_runtime.errands import LostTaskError
from paracle_agent_runtime.outbox import Parcel
from paracle_agent_runtime.plain import (
    DoneBeforeError,
    OwnedElsewhereError,
    done_plainly,
    long_at_work,
    look_elsewhere,
    look_whether_wanted,
)
from paracle_agent_runtime.plans import PlanCache
from paracle_agent_runtime.pools import Pool, Pools
from paracle_agent_runtime.ports import Letter
from paracle_agent_runtime.results import failed, result_message
from paracle_agent_runtime.sessions import TurnWaitsError
from paracle_agent_runtime.workshop import Workshop
from paracle_chassis import outages
from paracle_chassis.delivery import Delivery
from paracle_chassis.event_store import Loaded
from paracle_domain.errors import (
    InternalError,
    InvalidInput,
    NotFound,
    ParacleError,
)
from paracle_domain.plan import PlannedTool
from paracle_domain.subjects import Subject
from paracle_domain.task.messages import CancelTask, Task, TaskResult
from paracle_domain.task.state import Job

_log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 2.5
_OWNED_S: Final = 3.0
_OWNED_MAX_S: Final = 30.0
_ROUNDS: Final = 20  # about eight minutes; a run hands out what is silent every ten
_BROKEN_S: Final = 1.0
_WEIGH_S: Final = 0.25
_TRIES: Final = 5
_REMEMBERED: Final = 50_000
# Between a process' start and its first subscription; the clocks of the broker and of this machine differ, too.
_DEAF_NS: Final = 5_000_000_000


class Runtime:
    """The use cases of the agent runtime.

    Parameters
    ----------
    pools
        The worker pools that are served, and how much of each is worked on at once.
    drained
        Gives the pools of which nothing new is to be taken.
    drain_s
        Seconds that effects under way get to finish when the process stops.
    look_s
        Seconds between two looks after turns of sessions that wait for a run to come.
    """

    def __init__(
        self,
        shop: Workshop,
        plans: PlanCache,
        pools: Pools,
        drained: Callable[[], Coroutine[Any, Any, Collection[str]]],
        *,
        beat_s: float = 2.0,
        drain_s: float = 10.0,
        look_s: float = 5.0,
    ) -> None:
        self._shop = shop
        self._plans = plans
        self._leases = shop.leases
        self._pools = pools
        self._drained = drained
        self._looking = asyncio.Lock()
        self._beat_s = beat_s
        self._drain_s = drain_s
        self._look_s = look_s
        self._entries: dict[tuple[str, str], Entry] = {}
        self._cancelled: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._failures: OrderedDict[str, int] = OrderedDict()
        self._works: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._hears_since_ns = 0
        self._canceller = Canceller(shop, plans)

    async def __aenter__(self) -> Self:
        self._pools.weigh()  # before the first mail comes: this process may be too large as it is
        await self._beat()
        self._hears_since_ns = time.time_ns() + _DEAF_NS
        self._loops = [
            asyncio.create_task(_every(self._beat_s, self._beat), name="lease"),
            asyncio.create_task(_every(HEARTBEAT_S, self._heartbeat), name="heartbeat"),
            asyncio.create_task(_every(_WEIGH_S, self._weigh), name="memory"),
            asyncio.create_task(_every(self._look_s, self._shop.sessions.look), name="turns"),
        ]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._pools.stop()
        await self._quietly(asyncio.wait_for(self._beat(), self._beat_s))  # who hangs is not to hold up the drain
        await self._drain()
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        await self._shop.outbox.flush(self._drain_s)
        try:
            await self._leases.leave()
        except Exception as error:  # only an outage is waited out; the rest is raised
            if not outages.is_outage(error):
                raise
            _log.warning("the lease runs out by itself: %s", error)

    async def _beat(self) -> None:
        """A sign of life, with how all stands; and a look at what is to be drained, should it not have been heard."""
        async with self._looking:  # a slow look must not undo what a later one saw
            self._pools.drain(await self._drained())
        at_work = () if self._pools.stopping else long_at_work(self._entries.values())  # else it is anybody's at once
        await self._leases.beat(self._pools.report(self._for_people), at_work)

    def _for_people(self, pool: Pool) -> Mapping[str, int]:
        """How many tasks of `pool` wait for people, by tenant."""
        waiting = (entry for entry in self._entries.values() if entry.pool is pool and entry.for_people)
        return Counter(entry.context.tenant for entry in waiting)

    async def _weigh(self) -> None:
        self._pools.weigh()

    @property
    def running(self) -> int:
        """How many tasks are being worked on."""
        return len(self._entries)

    # ── mailboxes ────────────────────────────────────────────────────────────────────────────────────────────────

    async def take(self, batch: Sequence[Delivery]) -> None:
        """Take tasks on. Returns once all of `batch` have a place; they go on in the background."""
        for delivery in batch:
            try:
                task = delivery.decode(Task).slim()
            except ParacleError as error:
                await delivery.term(error)
                continue
            known = self._entries.get((delivery.tenant, task.task_id))
            if known is not None:
                await known.come_again(delivery)
                continue
            pool = self._pools[delivery.subject.rpartition(".")[2]]
            await pool.until_free()
            self._begin(task, delivery, pool)

    async def cancel(self, batch: Sequence[Delivery]) -> None:
        """Cancel tasks: here at once, and in the journal, so that no replica goes on."""
        commands = [(delivery, delivery.decode(CancelTask)) for delivery in batch]
        for delivery, command in commands:
            self._stop(delivery.tenant, command.task_id)
        ends = await asyncio.gather(*(self._cancel(*command) for command in commands), return_exceptions=True)
        for error in ends:
            if error is not None:
                raise error

    async def _cancel(self, delivery: Delivery, command: CancelTask) -> None:
        context = delivery.envelope.context.caused_by(delivery.envelope.id, command.run_id)
        result = await self._canceller.cancel(command, context)
        await self._shop.sessions.stopped(command, context.tenant)
        delivery.keep()
        self._shop.outbox.put(Parcel([result_message(result, context)], [delivery]))

    async def overhear(self, delivery: Delivery) -> None:
        """A task was cancelled somewhere: if it is here, it stops."""
        self._stop(delivery.tenant, Subject.parse(delivery.subject).tail[1])

    async def hear_of_approval(self, delivery: Delivery) -> None:
        """Something happened to an approval: if it is waited for here, it is looked at."""
        self._shop.decisions.heard(Subject.parse(delivery.subject).tail[1])

    async def hear_of_budget(self, delivery: Delivery) -> None:
        """A budget was raised, or changed: whoever waits for that here looks whether there is room."""
        self._shop.decisions.heard_of_budget(delivery.tenant, Subject.parse(delivery.subject).tail[1])

    async def hear_of_pool(self, _delivery: Delivery) -> None:
        """A pool was drained or resumed."""
        await self._beat()

    # ── one task ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _begin(self, task: Task, delivery: Delivery, pool: Pool) -> None:
        context = delivery.envelope.context.caused_by(delivery.envelope.id, task.run_id)
        delivery.keep()
        pool.enter(context.tenant)
        place = self._shop.sessions.line_up(Letter(pool.name, task, delivery.envelope))
        entry = Entry(task, context, delivery.envelope.id, [delivery], pool, place)
        self._entries[entry.key] = entry
        # Eager: a task that waits for nothing is done before this returns, without a turn of the event loop.
        work = entry.work = asyncio.Task(self._work(entry), loop=asyncio.get_running_loop(), eager_start=True)
        if not work.done():
            self._works.add(work)
            work.add_done_callback(self._works.discard)

    async def _work(self, entry: Entry) -> None:
        try:
            # Outages are waited out here, not by giving the task back: that would use up its deliveries.
            result = await outages.outlast(partial(self._execute, entry), f"task {entry.task.task_id}")
        except asyncio.CancelledError:
            await self._interrupted(entry)
        except TurnWaitsError:
            await self._set_aside(entry)
        except DoneBeforeError:
            self._let_go(entry)
        except (OwnedElsewhereError, LostTaskError):
            await self._leave_to_others(entry)
        except Exception as error:  # noqa: BLE001  # judged there: bug or poison
            await self._broke(entry, error)
        else:
            self._finish(entry, result)
        finally:
            if entry.place is not None:
                self._shop.sessions.step_out(entry.place)

    async def _execute(self, entry: Entry) -> TaskResult:
        task = entry.task
        try:
            digest = (entry.context.tenant, task.plan)
            plan = self._plans.known(*digest) or await self._plans.get(task.plan, entry.context)
            job = Job.of(task, plan)
        except (NotFound, InvalidInput) as error:
            await self._shop.sessions.give_up(task, entry.context.tenant)  # it may have entered before an upgrade
            return failed(task, error)
        if (entry.context.tenant, task.task_id) in self._cancelled:
            entry.cancelled = True
            raise asyncio.CancelledError
        if isinstance(job.target, PlannedTool) and job.target.spec.plain:
            if await self._cancelled_before(entry):
                entry.cancelled = True
                raise asyncio.CancelledError
            if entry.again:
                await look_elsewhere(self._shop, entry)
            elif self._is_old(entry):
                await look_whether_wanted(self._shop, entry)
            entry.plain = True
            return await done_plainly(self._shop, job, job.target, entry.context)
        history = await self._begun(entry)
        if entry.place is not None:
            job = await self._shop.sessions.join(job, entry.place)
        result = await self._journaled(entry, job, history)
        if entry.actor is not None and entry.actor.state.status.terminal:
            await self._shop.sessions.leave(entry.actor.state, entry.context.tenant)
        return result

    async def _cancelled_before(self, entry: Entry) -> bool:
        """Whether a task that leaves no history has one: a tombstone, from before this process heard of cancels."""
        if not self._is_old(entry):
            return False
        history = await self._shop.journal.load(entry.task.task_id)
        return history is not None and history.tenant == entry.context.tenant

    def _is_old(self, entry: Entry) -> bool:
        """Whether it was on its way before this process heard of cancels: its run may have been cancelled since."""
        delivery = entry.deliveries[0]
        return delivery.deliveries > 1 or delivery.stored_ns <= self._hears_since_ns

    async def _begun(self, entry: Entry) -> Loaded | None:
        """The history of a task that comes again. One without any that is not wanted must not enter its session either.

        Its run may be long gone, and then nobody would end its turn for those behind it.
        """
        if not self._is_old(entry):
            return None
        history = await self._shop.journal.load(entry.task.task_id)
        if history is None:
            await look_whether_wanted(self._shop, entry)
        return history

    async def _journaled(self, entry: Entry, job: Job, history: Loaded | None) -> TaskResult:
        """Most tasks come for the first time, so beginning is tried first: whether they do is the journal's to say."""
        task_id, journal = entry.task.task_id, self._shop.journal
        if history is None:
            entry.actor = TaskActor(self._shop, job, entry.context, entry.cause)
            if await entry.actor.begin():
                return await entry.actor.run()
            history = await journal.load(task_id)
        if history is None:
            raise InternalError(f"task {task_id} can neither be begun nor found")
        if history.tenant != entry.context.tenant:
            return failed(entry.task, NotFound(f"task {task_id} is not a task of this tenant"))
        return await self._resumed(entry, TaskActor.restore(self._shop, job, entry.context, entry.cause, history))

    async def _resumed(self, entry: Entry, actor: TaskActor) -> TaskResult:
        entry.actor = actor
        if not actor.state.status.terminal:
            if not await self._leases.claim(entry.task.task_id):
                raise OwnedElsewhereError
            _log.info("task %s is resumed at event %d", entry.task.task_id, actor.version)
            await actor.resume()
        return await actor.run()

    # ── how it ends ──────────────────────────────────────────────────────────────────────────────────────────────

    def _finish(self, entry: Entry, result: TaskResult) -> None:
        """Publish the result, with those of all tasks that are done by now; then ack and make room."""
        task = entry.task

        def instead(error: ParacleError) -> Sequence[Any]:
            return [result_message(failed(task, error, usage=result.usage), entry.context)]

        def done() -> None:
            self._forget(entry)
            telemetry.tasks.add(1, {"status": result.status, "target_kind": task.target_kind})
            telemetry.task_duration.record(time.monotonic() - entry.started, {"target_kind": task.target_kind})

        parcel = Parcel([result_message(result, entry.context)], entry.deliveries, done, instead)
        self._shop.outbox.put(parcel)

    async def _set_aside(self, entry: Entry) -> None:
        """A turn that waits is handed out again when it may go on; perhaps it was already, just now."""
        if entry.came_again:
            await self._give_back(entry, 0)
        else:
            self._let_go(entry)

    async def _leave_to_others(self, entry: Entry) -> None:
        """Somebody else has it. A copy finds its way there, or is too many: its run hands it out again."""
        tries = entry.deliveries[0].deliveries
        _log.info("task %s is worked on elsewhere (try %d)", entry.task.task_id, tries)
        if tries < _ROUNDS:
            await self._give_back(entry, min(_OWNED_S * 2 ** min(tries - 1, 10), _OWNED_MAX_S))
        else:
            self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        """Ack it, behind all that it has led to so far. What comes of it from now on is another entry's."""
        self._forget(entry)
        self._shop.outbox.put(Parcel([], entry.deliveries))

    async def _interrupted(self, entry: Entry) -> None:
        """Stopped by a cancel (whose result whoever journaled it reports), or because this process ends."""
        if not entry.cancelled:
            await self._hand_over(entry, 0)
            return
        if entry.actor is not None:
            await self._quietly(entry.actor.abort_calls())
        for delivery in entry.deliveries:
            await self._quietly(delivery.ack())
        self._forget(entry)

    async def _broke(self, entry: Entry, error: Exception) -> None:
        """What keeps breaking without an outage is a bug, and the run is told so."""
        task = entry.task
        tries = self._failures[task.task_id] = self._failures.get(task.task_id, 0) + 1
        _trim(self._failures)
        _log.error("task %s broke (try %d)", task.task_id, tries, exc_info=error)
        if tries < _TRIES or not await self._is_given_up(entry):
            await self._hand_over(entry, _BROKEN_S * min(tries, _TRIES))
            return
        reason = InternalError(f"task {task.task_id} broke {tries} times: {type(error).__name__}; see the log")
        for delivery in entry.deliveries:
            await self._quietly(delivery.term(reason, told=True))
        self._finish(entry, failed(task, reason))

    async def _is_given_up(self, entry: Entry) -> bool:
        """Whether nobody waits for its turn any more; an outage hinders that, and then it has to come again."""
        try:
            await self._shop.sessions.give_up(entry.task, entry.context.tenant)
        except Exception as error:  # noqa: BLE001  # whatever else it is will not get better
            _log.warning("the turn of task %s is not over: %s", entry.task.task_id, error)
            return not outages.is_outage(error)
        return True

    async def _hand_over(self, entry: Entry, delay_s: float) -> None:
        """Give back what was worked on here; anybody may take it up, although this process lives."""
        entry.work = None  # it is stopped no more: who has come to this goes through with it
        if entry.actor is not None:  # before a copy of it may begin here: it would be released, too
            await self._quietly(self._leases.release(entry.task.task_id))
        await self._give_back(entry, delay_s)

    async def _give_back(self, entry: Entry, delay_s: float) -> None:
        self._forget(entry)
        for delivery in entry.deliveries:
            await self._quietly(delivery.nak(delay_s))

    async def _quietly(self, work: Coroutine[Any, Any, None]) -> None:
        """What JetStream or a database does not hear, an ack wait, a lease or the next delivery makes good."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  # whatever it is: a task that has ended here must not stay in hand
            _log.warning("not heard: %s", error, exc_info=not outages.is_outage(error))

    def _forget(self, entry: Entry) -> None:
        if self._entries.get(entry.key) is entry:
            del self._entries[entry.key]
            entry.pool.leave(entry.context.tenant)

    def _stop(self, tenant: str, task_id: str) -> None:
        self._cancelled[tenant, task_id] = None
        _trim(self._cancelled)
        entry = self._entries.get((tenant, task_id))
        if entry is not None and not entry.cancelled:
            entry.cancelled = True
            entry.stop()

    # ── in the background ────────────────────────────────────────────────────────────────────────────────────────

    async def _heartbeat(self) -> None:
        """Keep JetStream from delivering again what is being worked on."""
        before = time.monotonic() - HEARTBEAT_S / 2
        old = [entry for entry in self._entries.values() if entry.started < before]
        await Delivery.all_in_progress(delivery for entry in old for delivery in entry.deliveries)

    async def _drain(self) -> None:
        """Let effects that are under way finish; everything else goes on elsewhere, from its journal."""
        deadline = time.monotonic() + self._drain_s
        while self._entries and time.monotonic() < deadline:
            for entry in list(self._entries.values()):
                if entry.interruptible:
                    entry.stop()
            await self._wait(0.1)
        for entry in list(self._entries.values()):
            entry.stop()
        await self._wait(1.0)

    async def _wait(self, seconds: float) -> None:
        if self._works:
            await asyncio.wait(list(self._works), timeout=seconds)
        else:
            await asyncio.sleep(min(seconds, 0.01))


def _trim(remembered: OrderedDict[Any, Any]) -> None:
    while len(remembered) > _REMEMBERED:
        remembered.popitem(last=False)


async def _every(seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Signs of life go on whatever happens to one of them."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception as error:  # noqa: BLE001  # without the next sign of life, this process would lose its tasks
            _log.warning("what is done every %g s failed: %s", seconds, error, exc_info=not outages.is_outage(error))
