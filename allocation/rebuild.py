"""Puts the state that the ledger tells into a gate: whole, or only what has been added to what the gate has."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar

from allocation.checkpoints import read_parts, read_state
from allocation.errors import CheckpointDamaged, Fenced, GateUnverified
from allocation.folding import (
    DEADLINES_KEY,
    RECORD_KEYS,
    FoldedState,
    FoldedTail,
)
from allocation.packing import packed, state_parts
from allocation.ports import Checkpoint, Gate, Head, Ledger, Part

OnRead = Callable[[int, int], None]
Folded = TypeVar("Folded", bound=FoldedState)


def _ignore(_read: int, _through: int) -> None:
    return


async def fold(ledger: Ledger, through_sequence: int, on_read: OnRead = _ignore) -> FoldedState:
    """Give the state at `through_sequence`, from the newest usable checkpoint and the entries behind it.

    `on_read` hears how far it is, and through what. Raises Diverged where the ledger does not have every entry up
    to there, and LedgerUnavailable.
    """
    for checkpoint in await ledger.checkpoints(through_sequence):
        try:
            state = await read_state(ledger, checkpoint)
        except CheckpointDamaged:
            continue
        return await _fold_onto(state, ledger, checkpoint.sequence, through_sequence, on_read)
    return await _fold_onto(FoldedState(), ledger, 0, through_sequence, on_read)


async def _fold_onto(
    state: Folded, ledger: Ledger, after: int, through: int, on_read: OnRead
) -> Folded:
    on_read(after, through)
    async with aclosing(ledger.pages(after, through)) as pages:
        async for page in pages:
            state.apply_page(page)
            on_read(page.last_sequence, through)
    return state


async def load(gate: Gate, state: FoldedState, head: Head) -> None:
    """Put a folded state into the gate and open it.

    Raises Fenced where a newer take-over is under way, and GateUnverified where the gate lost a part meanwhile.
    """
    async with _Loading(gate, head) as loading:
        await loading.begin()
        for part in state_parts(state):
            await loading.put(part)
        await loading.open(state.last_ms)


async def rebuild(gate: Gate, ledger: Ledger, head: Head, on_read: OnRead = _ignore) -> None:
    """Make the gate's state anew: the newest usable checkpoint, and what the ledger has added to it.

    Raises as `fold` and as `load`.
    """
    for checkpoint in await ledger.checkpoints(head.last_sequence):
        try:
            await _load_checkpoint(gate, ledger, head, checkpoint, on_read)
        except CheckpointDamaged:
            continue
        return
    state = await _fold_onto(FoldedState(), ledger, 0, head.last_sequence, on_read)
    await load(gate, state, head)


async def _load_checkpoint(
    gate: Gate, ledger: Ledger, head: Head, checkpoint: Checkpoint, on_read: OnRead
) -> None:
    # Its parts go through as they are. The tail comes first: a ledger that lacks entries must close no gate.
    after = checkpoint.sequence
    tail = await _fold_onto(FoldedTail(), ledger, after, head.last_sequence, on_read)
    async with _Loading(gate, head) as loading:
        await loading.begin()
        async with aclosing(read_parts(ledger, checkpoint)) as kept:
            async for part in kept:
                await loading.put(part)
        await loading.add(tail)
        await loading.open(max(checkpoint.last_ms, tail.last_ms))


async def replay_tail(gate: Gate, ledger: Ledger, head: Head, on_read: OnRead = _ignore) -> bool:
    """Bring a gate forward whose state the ledger has gone through, by the entries that it lacks.

    False where the gate has no such state: nothing was changed then. Raises as `rebuild`.
    """
    present = await gate.present_state()
    if present is None or not 0 < present[1] < head.last_sequence:
        return False
    epoch, sequence, last_hash = present
    if await ledger.hash_at(sequence) != last_hash:
        return False
    tail = await _fold_onto(FoldedTail(), ledger, sequence, head.last_sequence, on_read)
    async with _Loading(gate, head) as loading:
        if not await loading.close(epoch, sequence, last_hash):
            return False
        await loading.add(tail)
        await loading.open(tail.last_ms)
    return True


class _Loading:
    """The steps of one load. While the gate does one, the next is made ready; their order stays."""

    def __init__(self, gate: Gate, head: Head) -> None:
        self._gate, self._head = gate, head
        self._under_way: asyncio.Task[None] | None = None
        self._steps = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)

    async def begin(self) -> None:
        await self._step("begin")

    async def close(self, epoch: int, sequence: int, last_hash: str) -> bool:
        return await self._gate.load_step("close", self._head.epoch, epoch, sequence, last_hash)

    async def put(self, part: Part) -> None:
        await self._change("put", part.key, part.body)

    async def add(self, tail: FoldedTail) -> None:
        """Put what the tail changed, and take away what it ended."""
        for body in packed(name.encode() for pair in tail.forgotten_moves.items() for name in pair):
            await self._change("forget", body)
        for part in state_parts(tail):
            await self.put(part)
        gone = [(key, tail.gone(key)) for key in RECORD_KEYS]
        for key, names in (*gone, (DEADLINES_KEY, tail.gone_deadlines())):
            for body in packed(name.encode() for name in names):
                await self._change("remove", key, body)

    async def open(self, last_ms: int) -> None:
        await self._settle()
        head = self._head
        await self._step("open", head.last_sequence, head.last_hash, last_ms, self._steps)

    async def _change(self, step: str, *arguments: bytes | int) -> None:
        await self._settle()
        self._steps += 1
        self._under_way = asyncio.create_task(self._step(step, *arguments))

    async def _settle(self) -> None:
        if self._under_way is not None:
            await self._under_way
            self._under_way = None

    async def _step(self, step: str, *arguments: str | bytes | int) -> None:
        if await self._gate.load_step(step, self._head.epoch, *arguments):
            return
        if await self._gate.newest_epoch() > self._head.epoch:
            raise Fenced
        raise GateUnverified(
            "Redis has not all of what was put into it: it was emptied, replaced or restarted meanwhile. "
            "Nothing is sold from it; rebuild it once more."
        )
