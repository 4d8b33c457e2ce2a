"""The path of a shard's commands: gathered into batches, decided by the gate, made durable, then answered.

One call to the gate is in flight at a time; whatever arrives meanwhile goes out together in the next one. There
is no timer on the way: batches grow with the load alone. Only a small batch waits for the append under way, since
its own cannot begin before: what a call and a commit cost is then shared by more.
"""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable

import msgspec
from msgspec import Struct

from allocation.commands import Command, Confirm, Move, Order, Release, Reserve
from allocation.errors import (
    EngineError,
    Fenced,
    GateFull,
    GateUnverified,
    LedgerUnavailable,
    OutcomeUnknown,
    StaleProcess,
    TooManyWaiting,
)
from allocation.group_commit import Answer, GroupCommit, OnDurable, Waiting, fail
from allocation.outcomes import Outcome
from allocation.ports import Batch, Gate, Ledger
from allocation.takeover import Verified, verify

_EndOfHold = Confirm | Release
_StartOfHold = Reserve | Order
_WithLines = Reserve | Order | Move
_LOGGER = logging.getLogger(__name__)
_pack = msgspec.msgpack.Encoder().encode
_STOP_LOOK_SECONDS = 0.005


class Limits(Struct, frozen=True):
    """How much a shard takes on; each value with the reason for its size."""

    # A call to the gate should block it for a few milliseconds at most. A command of more lines goes alone.
    batch_lines_max: int = 256
    # As many commands go to the gate while the ledger still appends; fewer wait for it, and for company.
    early_batch_min: int = 32
    # What can be decided within the deadline even on a slow machine.
    waiting_max: int = 10_000
    # Ends of holds are let in until twice that many wait, so that a full queue still drains.
    waiting_ends_max: int = 20_000
    # A ledger this far behind is called unavailable before anything more is decided.
    ledger_lag_seconds_max: float = 0.25
    # Callers have given up by then, or soon will.
    answer_seconds_max: float = 5.0
    # Overdue holds are expired at least this often, also where nothing is sold.
    sweep_seconds: float = 0.25
    # By how many entries sweeping may run ahead of the ledger; more would only delay what callers wait for.
    swept_ahead_max: int = 1_024
    # The first pause after a fault; doubled up to a second.
    retry_seconds: float = 0.05
    # Of Redis' memory; above it units can be given back but no more be held.
    memory_share_max: float = 0.8
    # How often the memory is looked at.
    memory_look_seconds: float = 1.0


class Pipeline:
    """Decides commands for one shard and answers each when its decision is durable."""

    def __init__(
        self,
        gate: Gate,
        ledger: Ledger,
        *,
        limits: Limits | None = None,
        on_durable: OnDurable = lambda _last, _first, _bodies: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or Limits()
        self.verified: Verified | None = None
        self.take_overs = 0
        # Why the shard is closed, where it has been verified in vain.
        self.closed_by: EngineError | None = None
        self.decisions: Counter[int] = Counter()
        # Done, with the fault, when the pipeline cannot go on; whoever runs it must end the process.
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gate, self._ledger, self._now = gate, ledger, now
        self._on_durable = on_durable
        self._commit = GroupCommit(
            gate,
            ledger,
            on_durable=self._note_durable,
            on_fenced=self._lose_gate,
            on_idle=self._go_on_deciding,
            retry_seconds=self.limits.retry_seconds,
            now=now,
        )
        self._waiting: deque[Waiting] = deque()
        self._sent: list[Waiting] = []
        # Up to where the gate's decisions have been handed on to be made durable.
        self._handed_on = 0
        self._swept_all = True
        self._work = asyncio.Event()
        self._gate_full = False
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Verify gate and ledger, then begin to decide. Raises what `verify` raises."""
        await self._verify()
        loops = (
            self._decide_forever,
            self._commit.run,
            self._watch_forever,
            self._look_at_memory_forever,
        )
        self._tasks = [asyncio.create_task(loop()) for loop in loops]
        for task in self._tasks:
            task.add_done_callback(self._note_end)

    async def stop(self) -> None:
        """Stop deciding, make durable what was decided, and answer it."""
        deadline = self._now() + self.limits.answer_seconds_max
        while (self.waiting or not self._commit.idle) and self._now() < deadline:  # noqa: ASYNC110 - as below
            await asyncio.sleep(_STOP_LOOK_SECONDS)
        self._stopping = True
        while running := [task for task in self._tasks if not task.done()]:
            # Once is not enough: the Redis client can lose a cancellation.
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=_STOP_LOOK_SECONDS)
        self._commit.fail_all(OutcomeUnknown())
        fail(self._sent, OutcomeUnknown())
        fail(list(self._waiting), GateUnverified())
        self._sent = []
        self._waiting.clear()

    @property
    def durable_sequence(self) -> int:
        """Where the ledger ends."""
        return self._commit.durable_sequence

    @property
    def waiting(self) -> int:
        """How many commands have not been decided yet."""
        return len(self._waiting) + len(self._sent)

    @property
    def ledger_lag_seconds(self) -> float:
        """For how long the oldest decision has waited to become durable."""
        return self._commit.lag_seconds

    def submit(self, command: Command) -> Answer:
        """Ask for a decision; the answer comes when it is durable.

        Raises GateUnverified, GateFull, LedgerUnavailable or TooManyWaiting where nothing will be done.
        """
        self.require_open(command)
        # Packed here, so that a command that cannot be packed fails its own caller and no neighbour.
        packed = msgspec.Raw(_pack(command))
        answer: Answer = asyncio.get_running_loop().create_future()
        lines = len(command.lines) if isinstance(command, _WithLines) else 1
        self._waiting.append(Waiting(packed, lines, answer, self._now()))
        self._work.set()
        return answer

    def note_server(self, server: str) -> None:
        """Verify the shard again where the ledger's server is not the one that it was taken over on."""
        if self.verified is not None and self.verified.head.taken_on != server:
            self._lose_gate()

    def require_open(self, command: Command) -> None:
        """Raise what `submit` would raise now."""
        if self.verified is None or self.broken.done():
            raise GateUnverified
        ends_hold = isinstance(command, _EndOfHold)
        waiting_max = self.limits.waiting_ends_max if ends_hold else self.limits.waiting_max
        if len(self._waiting) >= waiting_max:
            raise TooManyWaiting
        if self._commit.lag_seconds > self.limits.ledger_lag_seconds_max * (4 if ends_hold else 1):
            raise LedgerUnavailable
        if self._gate_full and isinstance(command, _StartOfHold):
            raise GateFull

    async def _decide_forever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            if self.verified is None:
                await self._verify_until_done()
            if not self._is_worth_a_call():
                continue
            await self._decide_once(self.verified)
            if self._waiting:
                self._work.set()

    def _is_worth_a_call(self) -> bool:
        few = 0 < len(self._waiting) < self.limits.early_batch_min
        return not few or self._commit.idle or not self._swept_all

    async def _decide_once(self, verified: Verified | None) -> None:
        if verified is None:
            return
        self._sent = sent = self._next_batch()
        try:
            batch = await self._gate.decide(
                verified.head.epoch,
                verified.identity,
                [waiting.command for waiting in sent],
                self._commit.durable_sequence,
            )
        except Fenced:
            self._lose_gate()
            fail(sent, GateUnverified())
        except GateUnverified:
            self._lose_gate()
            fail(sent, OutcomeUnknown())
        else:
            self._take_decisions(batch, sent)
        # Not where this task is cancelled: what is in flight then is for `stop` to answer.
        self._sent = []

    def _next_batch(self) -> list[Waiting]:
        batch: list[Waiting] = []
        room = self.limits.batch_lines_max
        while self._waiting and (not batch or self._waiting[0].lines <= room):
            room -= self._waiting[0].lines
            batch.append(self._waiting.popleft())
        return batch

    def _take_decisions(self, batch: Batch, sent: list[Waiting]) -> None:
        outcomes = [made.outcome for made in batch.decisions]
        decided = list(zip(sent, batch.decisions, strict=True))
        if Outcome.DEFERRED in outcomes:
            deferred = [pair[0] for pair in decided if pair[1].outcome is Outcome.DEFERRED]
            decided = [pair for pair in decided if pair[1].outcome is not Outcome.DEFERRED]
            self._waiting.extendleft(reversed(deferred))
            outcomes = [made.outcome for _, made in decided]
        self.decisions.update(outcomes)
        # A call that decided nothing may still tell that another process did.
        if decided or batch.head.last_sequence > self._handed_on:
            self._commit.add(batch, decided)
            self._handed_on = batch.head.last_sequence
        self._swept_all = batch.head.swept_all
        self._go_on_sweeping()

    def _note_durable(self, last: int, first: int, bodies: list[bytes]) -> None:
        self._on_durable(last, first, bodies)
        self._go_on_sweeping()

    def _go_on_deciding(self) -> None:
        if self._waiting:
            self._work.set()

    def _go_on_sweeping(self) -> None:
        ahead = self._handed_on - self._commit.durable_sequence
        if not self._swept_all and ahead < self.limits.swept_ahead_max:
            self._work.set()

    def _lose_gate(self) -> None:
        self.verified = None
        fail(list(self._waiting), GateUnverified())
        self._waiting.clear()
        self._work.set()

    async def _verify_until_done(self) -> None:
        pause = self.limits.retry_seconds
        while self.verified is None:
            try:
                await self._verify()
            except EngineError as fault:
                self._note_closed(fault)
                await asyncio.sleep(pause)
                pause = min(1.0, 2 * pause)

    async def _verify(self) -> None:
        # Decisions under the old epoch are settled first, so that none is answered under the new one.
        while not self._commit.idle:  # noqa: ASYNC110 - rare, and a wait of its own would be one more state
            await asyncio.sleep(self.limits.retry_seconds)
        verified = await verify(self._gate, self._ledger)
        if verified.gate_sequence < self._commit.durable_sequence:
            raise StaleProcess("The ledger lost entries that this process has told of.")
        self.take_overs += verified.took_over
        self.closed_by = None
        self._commit.begin(verified.head)
        self._handed_on = verified.head.last_sequence
        self.verified = verified

    def _note_closed(self, fault: EngineError) -> None:
        # A server that is away comes back; anything else needs a person, once and not every second.
        passing = isinstance(fault, GateUnverified | LedgerUnavailable | Fenced)
        if not passing and type(fault) is not type(self.closed_by):
            _LOGGER.error("The shard is closed, %s: %s", type(fault).__name__, fault)
        self.closed_by = fault

    async def _watch_forever(self) -> None:
        """Let overdue holds expire, and tell callers in time that their answer is late."""
        while True:
            await asyncio.sleep(self.limits.sweep_seconds)
            self._work.set()
            late = self._now() - self.limits.answer_seconds_max
            while self._waiting and self._waiting[0].since < late:
                fail([self._waiting.popleft()], LedgerUnavailable())
            self._commit.fail_older(late, OutcomeUnknown())

    async def _look_at_memory_forever(self) -> None:
        while True:
            try:
                share = await self._gate.memory_share()
            except GateUnverified:
                share = 0.0
            self._gate_full = share > self.limits.memory_share_max
            await asyncio.sleep(self.limits.memory_look_seconds)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        # A loop that ends by itself is a bug; going on without it would leave every caller waiting.
        if self._stopping or self.broken.done():
            return
        fault = None if task.cancelled() else task.exception()
        self.broken.set_exception(fault or AssertionError("Bug: a loop of the pipeline has ended."))
        # Nobody else would answer them, and the process cannot end while they wait.
        self._lose_gate()
        fail(self._sent, OutcomeUnknown())
        self._commit.fail_older(float("inf"), OutcomeUnknown())
