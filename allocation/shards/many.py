"""Many shards behind the face of one."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from allocation.commands import (
    CheckLines,
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Extend,
    Move,
    Order,
    ReadConfiguration,
    ReadReservation,
    Release,
    Reserve,
)
from allocation.errors import NothingDone, OutcomeUnknown
from allocation.outcomes import Outcome
from allocation.ports import Decision
from allocation.shards.asking import Shard, ask_each
from allocation.shards.carts import Carts
from allocation.shards.directory import Directory
from allocation.shards.ends import Ends
from allocation.shards.movements import Movements
from allocation.shards.postgres_claims import PostgresClaims
from allocation.shards.routing import shard_of
from allocation.shards.settling import Settling

_SET = frozenset({Outcome.CREATED, Outcome.REPLACED, Outcome.UNCHANGED})


class ManyShards:
    """Decides every command that is not about one shard's own records, as a pipeline does."""

    def __init__(self, shards: Sequence[Shard], claims: PostgresClaims, retention_ms: int) -> None:
        self._shards = shards
        directory = Directory(shards, claims)
        self._carts = Carts(shards, claims, directory, retention_ms)
        self._ends = Ends(shards, claims, directory, retention_ms)
        self._movements = Movements(shards, claims)
        self.settling = Settling(shards, claims, self._carts, self._ends, self._movements)
        self._work_of: dict[type, Callable[[Any], Coroutine[Any, Any, Decision]]] = {
            **dict.fromkeys((Reserve, Order), self._carts.take),
            **dict.fromkeys((Confirm, Release, Extend, ReadReservation), self._ends.ask),
            Move: self._movements.move,
            CheckLines: self._check,
        }
        self._under_way: set[asyncio.Task[Decision]] = set()

    def submit(self, command: Command) -> Awaitable[Decision]:
        """Ask for a decision; the answer comes when it is durable. Raises, later, as a pipeline does."""
        work = self._work_of.get(type(command))
        if work is not None:
            return self._run(work(command))
        match command:
            case ConfigureLocation() | ConfigureChannel():
                # Asked at once, so that what is configured one after the other is so everywhere.
                return self._run(self._everywhere(self._asked_everywhere(command)))
            case ConfigureSku():
                return self._shards[shard_of(command.sku, len(self._shards))].submit(command)
            case ReadConfiguration():
                return self._shards[0].submit(command)
            case _:
                raise AssertionError(f"Bug: {type(command).__name__} is for one shard")

    def _run(self, work: Coroutine[Any, Any, Decision]) -> Awaitable[Decision]:
        """Go on where the caller has gone away: what was begun on one shard is ended on all."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._note_end)
        return asyncio.shield(task)

    def _note_end(self, task: "asyncio.Task[Decision]") -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            # The caller may have gone away; then nobody else asks for it.
            task.exception()

    def _asked_everywhere(self, command: Command) -> list[Awaitable[Decision]]:
        for shard in self._shards:
            shard.require_open(command)
        return [shard.submit(command) for shard in self._shards]

    async def _everywhere(self, asked: list[Awaitable[Decision]]) -> Decision:
        answers = await asyncio.gather(*asked, return_exceptions=True)
        decisions = [answer for answer in answers if isinstance(answer, Decision)]
        if len(decisions) < len(answers):
            fault = next(answer for answer in answers if isinstance(answer, BaseException))
            raise OutcomeUnknown if isinstance(fault, NothingDone) and decisions else fault
        for decision in decisions:
            if decision.outcome not in _SET:
                return decision
        return min(decisions, key=lambda decision: decision.outcome)

    async def _check(self, command: CheckLines) -> Decision:
        count = len(self._shards)
        skus: dict[int, list[str]] = {0: []}
        for sku in command.skus:
            skus.setdefault(shard_of(sku, count), []).append(sku)
        checks = [(shard, CheckLines(tuple(own), command.locations)) for shard, own in skus.items()]
        decisions = await ask_each(self._shards, checks)
        refusals = (made for made in decisions if made.outcome is not Outcome.FOUND)
        return next(refusals, decisions[0])
