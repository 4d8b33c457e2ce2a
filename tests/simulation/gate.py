"""A simulated Redis with all that can happen to its server, and the engine's port to it."""

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

import msgspec
from simulation.decisions import Call
from simulation.loop import SimulationLoop
from simulation.network import ConnectionLostError, Note, Server
from simulation.store import Arguments, JournalRefusedError, Store

from allocation.errors import Fenced, GateUnverified
from allocation.outcomes import Status
from allocation.ports import Batch, BatchHead, Identity

Result = TypeVar("Result")
EPOCH_MS = 1_800_000_000_000
# Many enough for a cut to lose what was decided, and what was loaded.
SNAPSHOTS_KEPT = 24


class RedisServer(Server):
    """One Redis: identity, data, and the data as it was before each of the last calls."""

    call_type: type[Call] = Call

    def __init__(
        self, name: str, loop: SimulationLoop, random: Random, note: Note, identity: Identity
    ) -> None:
        super().__init__(name, loop, random, note)
        self.identity = identity
        self.store = Store()
        self.snapshots: list[Store] = []
        self.clock_ahead_ms = 0
        self.overdue_max = 128
        self.memory_share = 0.0
        # How often the journal refuses what the gate has decided.
        self.refusals = 0.0
        self.on_decided: Callable[[RedisServer, int, int, str], None] = lambda *_: None

    def now_ms(self) -> int:
        """Read the server's clock, which may be set wrong."""
        return EPOCH_MS + self.clock_ahead_ms + int(self.loop.time() * 1000)

    def decide(
        self, epoch: int, identity: Identity, commands: Sequence[msgspec.Raw], durable: int
    ) -> Batch:
        """Decide commands in order, as batch.lua does. Raises JournalRefusedError."""
        status = self.fence(epoch, identity)
        if status is not Status.DECIDED:
            return Batch(BatchHead(status, 0, 0, "", 0, "", swept_all=False), [], [])
        store = self.store
        call = self.call_type(store, self.now_ms(), self.overdue_max)
        decisions = call.decide(commands)
        first, hash_before = store.sequence + 1, store.hash
        if call.entries:
            self.snapshot()
            self.write(epoch, call, durable)
            self.on_decided(self, epoch, call.sequence, call.hash)
        head = BatchHead(
            Status.DECIDED,
            call.now_ms,
            first,
            hash_before,
            call.sequence,
            call.hash,
            call.swept_all,
            self.now_ms(),
        )
        return Batch(head, decisions, call.entries)

    def fence(self, epoch: int, identity: Identity) -> Status:
        """Make sure that this is the server that was verified, and that nobody has taken over."""
        if identity != self.identity:
            return Status.FENCED
        if self.store.epoch is None:
            return Status.NO_STATE
        return Status.DECIDED if self.store.epoch == epoch else Status.FENCED

    def write(self, epoch: int, call: Call, durable: int) -> None:
        """Write what was decided: the journal first, which can refuse, then what cannot fail."""
        self.write_journal(epoch, call)
        self.write_meta(call)
        self.write_records(call)
        self.trim(epoch, durable)

    def write_journal(self, epoch: int, call: Call) -> None:
        """Write the entries of one call. Raises JournalRefusedError where nothing was written."""
        if self.refusals and self.random.random() < self.refusals:
            raise JournalRefusedError
        first = call.sequence - len(call.entries) + 1
        self.store.add_to_journal(epoch, list(enumerate(call.entries, first)))

    def write_meta(self, call: Call) -> None:
        """Write where the journal ends."""
        store = self.store
        store.sequence, store.hash, store.last_ms = call.sequence, call.hash, call.now_ms

    def write_records(self, call: Call) -> None:
        """Write the records as the call left them."""
        store = self.store
        store.write(call.changed)
        for forget, member in call.moves:
            if forget:
                store.forget_moves(forget, member)
            else:
                store.moves.add(member)

    def trim(self, epoch: int, durable: int) -> None:
        """Forget what is durable; Redis does it when it likes to."""
        if self.random.random() < 0.7:
            self.store.trim_journal(epoch, durable)

    def load_step(self, step: str, epoch: int, arguments: Arguments) -> bool:
        """Do one step of a take-over."""
        self.snapshot()
        return self.store.load_step(step, epoch, arguments)

    def snapshot(self) -> None:
        """Remember the data as they are, before they change."""
        self.snapshots.append(self.store.copy())
        del self.snapshots[:-SNAPSHOTS_KEPT]

    def earlier(self, calls: int) -> Store:
        """Give the data as they were some calls ago."""
        return (
            self.snapshots[-min(calls, len(self.snapshots))].copy() if self.snapshots else Store()
        )


class SimulatedGate:
    """The engine's port to a simulated Redis, for one process; it may still hold to an old primary."""

    def __init__(self, caller: str, server: RedisServer) -> None:
        self.caller, self.server = caller, server
        self.on_step: Callable[[str], None] = lambda _step: None

    async def prepare(self) -> Identity:
        return await self._ask("prepare", lambda server: server.identity)

    async def decide(
        self,
        epoch: int,
        identity: Identity,
        commands: Sequence[msgspec.Raw],
        durable_sequence: int,
    ) -> Batch:
        try:
            batch = await self._ask(
                "decide",
                lambda server: server.decide(epoch, identity, commands, durable_sequence),
            )
        except JournalRefusedError as refused:
            raise Fenced from refused
        if batch.head.status is not Status.DECIDED:
            raise Fenced
        return batch

    async def memory_share(self) -> float:
        return await self._ask("memory", lambda server: server.memory_share)

    async def read_journal(self, after_sequence: int) -> list[tuple[int, bytes]]:
        return await self._ask(
            "read journal", lambda server: server.store.entries_after(after_sequence)
        )

    async def present_state(self) -> tuple[int, int, str] | None:
        return await self._ask("state", lambda server: _state(server.store))

    async def newest_epoch(self) -> int:
        return await self._ask("newest epoch", lambda server: server.store.newest_epoch)

    async def load_step(self, step: str, epoch: int, *arguments: str | bytes | int) -> bool:
        done = await self._ask(
            f"load {step}", lambda server: server.load_step(step, epoch, arguments)
        )
        if done:
            self.on_step(step)
        return done

    async def _ask(self, what: str, act: Callable[[RedisServer], Result]) -> Result:
        server = self.server
        try:
            return await server.call(self.caller, what, lambda: act(server))
        except ConnectionLostError as lost:
            raise GateUnverified from lost


def _state(store: Store) -> tuple[int, int, str] | None:
    return None if store.epoch is None else (store.epoch, store.sequence, store.hash)
