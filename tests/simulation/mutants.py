"""The engine with one safeguard removed at a time: proof that a run would show it if it were missing.

Nothing of this is in the engine. Each mutant is a world built of one replaced part, the smallest that takes the
safeguard out, and each must be found out within a bounded number of seeds. The numbers that are missing are of
safeguards that this level does not have: settings of real servers (M9), time-outs of keys in Redis (M10), and
rules of the Lua (M12, M13). Those are taken away from real servers (tests/mutants).
"""

import asyncio
from collections.abc import Sequence

import msgspec
from simulation.decisions import Call
from simulation.gate import RedisServer, SimulatedGate
from simulation.ledger import SimulatedLedger, SimulatedPostgres
from simulation.promotion import PromotionWorld
from simulation.store import Arguments
from simulation.world import Build, World

from allocation.errors import Fenced, GateUnverified, LedgerUnavailable
from allocation.group_commit import GroupCommit, Waiting, answer, fail
from allocation.journal import chain
from allocation.outcomes import Outcome, Status
from allocation.pipeline import Pipeline
from allocation.ports import Batch, Decision, Head, Identity, Part


class _NoCompareAndSet(SimulatedPostgres):
    """M1: whoever appends moves the head, wherever it is."""

    def is_head(self, _head: Head) -> bool:
        return True


class _ConflictsSwallowed(_NoCompareAndSet):
    """M2: an entry whose sequence is taken is left out in silence."""

    def append(
        self, head: Head, hashes: Sequence[str], bodies: Sequence[bytes], last_hash: str
    ) -> int:
        before = self.head
        inserted = super().append(head, hashes, bodies, last_hash)
        if before.last_sequence > self.head.last_sequence:
            self.head = before
        return inserted

    def insert(self, first: int, hashes: Sequence[str], bodies: Sequence[bytes]) -> None:
        for sequence, row in enumerate(zip(hashes, bodies, strict=True), first):
            self.rows.setdefault(sequence, row)


class _RunIdAlone(RedisServer):
    """M3: a server that was replaced and came back, and never ended in between, is taken for the same."""

    def fence(self, epoch: int, identity: Identity) -> Status:
        if identity.run_id == self.identity.run_id:
            identity = self.identity
        return super().fence(epoch, identity)


class _NoFence(RedisServer):
    """M4: whoever calls decides, on whatever server it is."""

    def fence(self, _epoch: int, _identity: Identity) -> Status:
        return Status.DECIDED if self.store.epoch is not None else Status.NO_STATE


class _CommitOf(Pipeline):
    """A pipeline with another group commit."""

    commit_type: type[GroupCommit]

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)
        self._commit.__class__ = self.commit_type


class _AnswersFirstCommit(GroupCommit):
    def add(self, batch: Batch, waiting: list[tuple[Waiting, Decision]]) -> None:
        answer(waiting)
        super().add(batch, waiting)


class _AnswersFirst(_CommitOf):
    """M5: callers hear of a decision before it is in the ledger."""

    commit_type = _AnswersFirstCommit


class _OwnEntriesCommit(GroupCommit):
    async def _missing_entries(self, group: list) -> list[bytes]:
        assert self._head is not None
        self._head = await self._ledger.insert_alone(self._head, group[0].batch)
        self.durable_sequence = max(self.durable_sequence, self._head.last_sequence)
        return []


class _OwnEntries(_CommitOf):
    """M6: callers are answered when their own entry is in the ledger, whatever is missing before it."""

    commit_type = _OwnEntriesCommit


class _InsertsAlone(SimulatedLedger):
    """What M6 needs of its ledger: rows that go in without those before them."""

    async def insert_alone(self, head: Head, batch: Batch) -> Head:
        moved = await self._ask(
            f"insert {batch.head.first_sequence}", lambda: self._insert_alone(head, batch)
        )
        if moved is None:
            raise Fenced
        return moved

    def _insert_alone(self, head: Head, batch: Batch) -> Head | None:
        server, latest = self.server, batch.head.hash_before
        if server.head.epoch != head.epoch:
            return None
        for number, body in enumerate(batch.entries, batch.head.first_sequence):
            latest = chain(latest, body)
            server.rows.setdefault(number, (latest, body))
        if batch.head.last_sequence > server.head.last_sequence:
            server.head = msgspec.structs.replace(
                server.head, last_sequence=batch.head.last_sequence, last_hash=latest
            )
        return server.head


class _ReplaysFirst(Pipeline):
    """M7: what the gate has seen before is answered at once, though the ledger may not have it."""

    def _take_decisions(self, batch: Batch, sent: list[Waiting]) -> None:
        for waiting, decision in zip(sent, batch.decisions, strict=True):
            if decision.outcome in {Outcome.REPLAYED, Outcome.DUPLICATE}:
                answer([(waiting, decision)])
        super()._take_decisions(batch, sent)


class _ForgetsReplays(Call):
    knows_replays = False


class _NotIdempotent(RedisServer):
    """What M8 needs of its gate: nothing is known by its id."""

    call_type = _ForgetsReplays


class _RepeatsCalls(SimulatedGate):
    """M8: the client of Redis sends a call again by itself when the reply is missing."""

    async def decide(
        self,
        epoch: int,
        identity: Identity,
        commands: Sequence[msgspec.Raw],
        durable_sequence: int,
    ) -> Batch:
        try:
            return await super().decide(epoch, identity, commands, durable_sequence)
        except GateUnverified:
            return await super().decide(epoch, identity, commands, durable_sequence)


class _JournalLast(RedisServer):
    """M11: the records are written first; then the journal may refuse."""

    def write(self, epoch: int, call: Call, durable: int) -> None:
        self.write_records(call)
        self.write_journal(epoch, call)
        self.write_meta(call)
        self.trim(epoch, durable)


class _UnknownIsNotDoneCommit(GroupCommit):
    async def _append_once(self) -> None:
        try:
            await super()._append_once()
        except LedgerUnavailable:
            for decided in self._decided:
                fail([waiting for waiting, _ in decided.waiting], LedgerUnavailable())
            raise


class _UnknownIsNotDone(_CommitOf):
    """M14: a commit that timed out is taken for one that was not made, and callers are told so."""

    commit_type = _UnknownIsNotDoneCommit


class _TrimsByLength(RedisServer):
    """M15: the journal keeps the last call, whether the ledger has the others or not."""

    def trim(self, _epoch: int, _durable: int) -> None:
        del self.store.journal[:-1]


class _OpensUncounted(RedisServer):
    """M16: a load that went on on another server is opened, though the half of it may be missing there."""

    def load_step(self, step: str, epoch: int, arguments: Arguments) -> bool:
        if step == "open":
            *state, _steps = arguments
            arguments = (*state, self.store.loaded)
        return super().load_step(step, epoch, arguments)


class _TakesWhatIsNotThere(Call):
    def _take(self, sku: str, quantity: int, channel: str, bucket: int) -> int:
        self._promise(sku, channel, bucket, quantity)
        return quantity


class _Oversells(RedisServer):
    """M17: the gate promises units without looking whether they are there."""

    call_type = _TakesWhatIsNotThere


class _NeverVerifiesAgain(Pipeline):
    """M18: a process that has lost the gate waits for somebody to tell it that it is back."""

    async def _verify_until_done(self) -> None:
        await asyncio.Event().wait()


class _HoldsNothing(SimulatedGate):
    """M19: nobody looks what the gate holds before it is made anew from the ledger."""

    async def present_state(self) -> tuple[int, int, str] | None:
        return None


class _LooksOnce(SimulatedGate):
    """M20: what the gate holds is not looked at again under the new epoch before it is made anew."""

    looks_away = False

    async def load_step(self, step: str, epoch: int, *arguments: str | bytes | int) -> bool:
        done = await super().load_step(step, epoch, *arguments)
        self.looks_away = step == "arm" and not done
        return done

    async def present_state(self) -> tuple[int, int, str] | None:
        looks_away, self.looks_away = self.looks_away, False
        return None if looks_away else await super().present_state()


class _BelievesCheckpoints(SimulatedLedger):
    """M21: a part of a checkpoint is loaded as it is read, whatever was written."""

    def is_undamaged(self, _part: Part, _expected: str) -> bool:
        return True


MUTANTS: dict[str, Build] = {
    "M1": Build(postgres=_NoCompareAndSet),
    "M2": Build(postgres=_ConflictsSwallowed),
    "M3": Build(redis=_RunIdAlone),
    "M4": Build(redis=_NoFence),
    "M5": Build(pipeline=_AnswersFirst),
    "M6": Build(pipeline=_OwnEntries, ledger=_InsertsAlone),
    "M7": Build(pipeline=_ReplaysFirst),
    "M8": Build(gate=_RepeatsCalls, redis=_NotIdempotent),
    "M11": Build(redis=_JournalLast),
    "M14": Build(pipeline=_UnknownIsNotDone),
    "M15": Build(redis=_TrimsByLength),
    "M16": Build(redis=_OpensUncounted),
    "M17": Build(redis=_Oversells),
    "M18": Build(pipeline=_NeverVerifiesAgain),
    "M19": Build(gate=_HoldsNothing),
    "M20": Build(gate=_LooksOnce),
    "M21": Build(ledger=_BelievesCheckpoints),
}
# Those that only a ledger shows that has lost its end.
WORLDS: dict[str, type[World]] = {"M19": PromotionWorld, "M20": PromotionWorld}
