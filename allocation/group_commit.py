"""Makes decisions durable, in order, and answers each when the ledger has reached it.

One append is in flight at a time; the next takes all that waits. Whatever another process has decided before
is appended with it: an answer needs the whole prefix.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

import msgspec
from msgspec import Struct

from allocation.errors import (
    Diverged,
    EngineError,
    Fenced,
    GateUnverified,
    LedgerUnavailable,
    OutcomeUnknown,
)
from allocation.ports import Batch, Decision, Gate, Head, Ledger

Answer = asyncio.Future[Decision]
# Longer commits gain nothing; the statement's arrays stay small.
APPEND_ENTRIES_MAX = 4_096
RETRY_SECONDS_MAX = 1.0

# Called with the ledger's end, and with entries and the sequence of the first, where they are known.
OnDurable = Callable[[int, int, list[bytes]], None]


class Waiting(Struct, frozen=True):
    """A command, packed, and the caller who waits for its answer. `lines` is how much work it is."""

    command: msgspec.Raw
    lines: int
    answer: Answer
    since: float


class _Decided(Struct, frozen=True):
    batch: Batch
    waiting: list[tuple[Waiting, Decision]]
    since: float


class GroupCommit:
    """The way of one shard's decisions into the ledger."""

    def __init__(  # noqa: PLR0913 - what it joins, and its two voices
        self,
        gate: Gate,
        ledger: Ledger,
        *,
        on_durable: OnDurable,
        on_fenced: Callable[[], None],
        on_idle: Callable[[], None],
        retry_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.durable_sequence = 0
        self._gate, self._ledger = gate, ledger
        self._on_durable, self._on_fenced, self._on_idle = on_durable, on_fenced, on_idle
        self._retry_seconds, self._now = retry_seconds, now
        self._head: Head | None = None
        self._decided: deque[_Decided] = deque()
        self._to_append = asyncio.Event()

    @property
    def lag_seconds(self) -> float:
        """For how long the oldest decision has waited to become durable."""
        return self._now() - self._decided[0].since if self._decided else 0.0

    @property
    def idle(self) -> bool:
        """Whether everything that was decided has been answered."""
        return not self._decided

    def begin(self, head: Head) -> None:
        """Go on behind `head`, under its epoch."""
        assert self.idle, "Bug: decisions of two epochs at once"
        self._head = head
        told, self.durable_sequence = self.durable_sequence, head.last_sequence
        if head.last_sequence > told:
            # Others have appended, or the take-over has.
            self._on_durable(head.last_sequence, head.last_sequence + 1, [])

    def add(self, batch: Batch, waiting: list[tuple[Waiting, Decision]]) -> None:
        """Take over what a call to the gate decided."""
        if self.idle and batch.head.last_sequence <= self.durable_sequence:
            answer(waiting)
            return
        self._decided.append(_Decided(batch, waiting, self._now()))
        self._to_append.set()

    def fail_older(self, since: float, fault: EngineError) -> None:
        """Tell callers whose decisions were made before a moment that their answer is late."""
        for decided in self._decided:
            if decided.since >= since:
                return
            fail([waiting for waiting, _ in decided.waiting], fault)

    def fail_all(self, fault: EngineError) -> None:
        """Give every caller up."""
        self.fail_older(float("inf"), fault)
        self._decided.clear()

    async def run(self) -> None:
        """Append for ever."""
        while True:
            await self._to_append.wait()
            self._to_append.clear()
            pause, outcome_known = self._retry_seconds, True
            while self._decided:
                try:
                    if not outcome_known:
                        await self._read_head_again()
                    await self._append_once()
                    pause, outcome_known = self._retry_seconds, True
                except LedgerUnavailable:
                    await asyncio.sleep(pause)
                    pause, outcome_known = min(RETRY_SECONDS_MAX, 2 * pause), False
                except (Fenced, Diverged, GateUnverified):
                    self._head = None
                    self._on_fenced()
                    await self._settle_by_hash()
            self._on_idle()

    async def _append_once(self) -> None:
        group: list[_Decided] = []
        entries = 0
        for decided in self._decided:
            group.append(decided)
            entries += len(decided.batch.entries)
            if entries >= APPEND_ENTRIES_MAX:
                break
        await self._make_durable(group)
        for decided in group:
            self._decided.popleft()
            answer(decided.waiting)

    async def _make_durable(self, group: list[_Decided]) -> None:
        target = group[-1].batch.head
        while self.durable_sequence < target.last_sequence:
            if self._head is None:
                raise Fenced
            bodies = _continuation(group, self.durable_sequence)
            if bodies is None:
                bodies = await self._missing_entries(group)
            if not bodies:
                continue
            first = self.durable_sequence + 1
            try:
                head = await self._ledger.append(self._head, bodies, target.hash_after)
            except Fenced:
                await self._read_head_again()
                continue
            self._head, self.durable_sequence = head, head.last_sequence
            self._on_durable(head.last_sequence, first, bodies)

    async def _missing_entries(self, group: list[_Decided]) -> list[bytes]:
        """Find what another process decided before: in the ledger by now, or still in the journal."""
        before = self.durable_sequence
        await self._read_head_again()
        if self.durable_sequence != before:
            return []
        journal = dict(await self._gate.read_journal(before))
        own = {
            decided.batch.head.first_sequence + offset: body
            for decided in group
            for offset, body in enumerate(decided.batch.entries)
        }
        wanted = range(before + 1, group[-1].batch.head.last_sequence + 1)
        try:
            return [own.get(sequence) or journal[sequence] for sequence in wanted]
        except KeyError:
            # Another process has appended and trimmed between our two looks; or the entries are gone.
            await self._read_head_again()
            if self.durable_sequence != before:
                return []
            raise Diverged from None

    async def _read_head_again(self) -> None:
        head = await self._ledger.head()
        if self._head is None or head.epoch != self._head.epoch:
            raise Fenced
        if head.last_sequence < self.durable_sequence or (
            head.last_sequence == self.durable_sequence and head.last_hash != self._head.last_hash
        ):
            # The ledger has lost what was answered: a standby was promoted that did not have it.
            raise Diverged
        if head.last_sequence > self.durable_sequence:
            self._head, self.durable_sequence = head, head.last_sequence
            self._on_durable(head.last_sequence, head.last_sequence + 1, [])

    async def _settle_by_hash(self) -> None:
        """Answer what another process made durable for us; of the rest nobody knows."""
        while self._decided:
            decided = self._decided[0]
            try:
                known = await self._ledger.hash_at(decided.batch.head.last_sequence)
            except LedgerUnavailable:
                await asyncio.sleep(self._retry_seconds)
                continue
            if known == decided.batch.head.hash_after:
                answer(decided.waiting)
            else:
                fail([waiting for waiting, _ in decided.waiting], OutcomeUnknown())
            self._decided.popleft()


def answer(decided: list[tuple[Waiting, Decision]]) -> None:
    """Give callers their decisions."""
    for waiting, decision in decided:
        # A caller that has gone away cancelled its answer; the decision stands all the same.
        if not waiting.answer.done():
            waiting.answer.set_result(decision)


def fail(failed: list[Waiting], fault: EngineError) -> None:
    """Give callers a fault, each one of its own."""
    for waiting in failed:
        if not waiting.answer.done():
            waiting.answer.set_exception(type(fault)())


def _continuation(group: list[_Decided], durable_sequence: int) -> list[bytes] | None:
    """Give the entries that follow the ledger's end; None where some before ours are missing."""
    bodies: list[bytes] = []
    expected = durable_sequence + 1
    for decided in group:
        first, entries = decided.batch.head.first_sequence, decided.batch.entries
        if first > expected:
            return None
        bodies += entries[expected - first :]
        expected = max(expected, first + len(entries))
    return bodies if expected > group[-1].batch.head.last_sequence else None
