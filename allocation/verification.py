"""Online verification: whether the gate has what the ledger tells, to the byte, while the shard goes on selling.

Records are read together with where the gate stood at that moment. What differs from the folded state is compared
again with the state at exactly that entry, so that nothing has to stand still, and nothing is found by chance.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from msgspec import Struct

from allocation.comparison import (
    COMPARED_KEYS,
    Drift,
    Found,
    count_of,
    differing,
    drift_of,
    fields_of,
    told,
)
from allocation.errors import ChainBroken, GateUnverified
from allocation.folding import DEADLINES_KEY, MOVES_KEY, FoldedState, collector_paused
from allocation.gate.keys import KEY_NAMES
from allocation.history import History, ReadLedger, is_broken_at
from allocation.ports import KeyUnreadableError, Moment, Scanned

# So many records keep the gate from deciding for half a millisecond; to name the fields takes longer.
CHUNK_RECORDS, CHUNK_SCORES, CHUNK_NAMED = 1_000, 2_000, 250
PAUSE_SECONDS_MIN = 0.001
# How much of one processor the comparing may take, however large the shard is. Redis takes as much again, so that
# both stay under a hundredth. Until a round has found everything right, it should not take long.
CPU_SHARE_MAX = 0.004
FIRST_ROUND_FACTOR = 10
DRIFTS_MAX = 1_000
# Of what was read before, so many entries are checked once more in each round.
AGAIN_ENTRIES = 5_000
CHECKPOINT_ENTRIES = 100_000
_LOOKS, _LOOK_SECONDS = 5, 0.1

# Called with the ledger, the state that it tells, and the sequence and hash of the entry where it tells that.
KeepCheckpoint = Callable[[ReadLedger, FoldedState, int, str], Awaitable[None]]


class Checkpoints(Struct, frozen=True):
    """What gives the history to begin with, and what keeps a state whenever so many entries have come."""

    begin: Callable[[], Awaitable[History]]
    keep: KeepCheckpoint
    entries: int = CHECKPOINT_ENTRIES


class GateReads(Protocol):
    """What is read of the gate, and where it stood then. Raises GateUnverified where it has no state, too."""

    async def moment(self) -> Moment:
        """Say where the gate stands."""
        ...

    async def records(self, key: int, fields: Sequence[bytes]) -> tuple[Moment, list[Found]]:
        """Read the records of some fields, None where there is none."""
        ...

    async def count(self, key: int) -> tuple[Moment, int]:
        """Say how many fields a key has."""
        ...

    async def scan(self, key: int, cursor: bytes, count: int) -> Scanned:
        """Read some fields, and where to go on; begin with no cursor."""
        ...


class Round(Struct, frozen=True):
    """What one round has compared, through which entry, and what it found: 1,000 differences at most."""

    sequence: int
    records: int
    drifts: list[Drift]


class OtherHistoryError(Exception):
    """The gate stands where the ledger, as it was read, does not."""


class Comparing:
    """Compares the keys of a gate with a history, which follows as far as the gate has come."""

    def __init__(
        self, gate: GateReads, history: History, cpu_share_max: float, *, lay_out: bool = False
    ) -> None:
        self.records = 0
        self.drifts: list[Drift] = []
        self._lay_out = lay_out
        self._gate, self._history, self._cpu_share_max = gate, history, cpu_share_max

    async def begin(self) -> None:
        """Read the ledger through where the gate stands now."""
        await self._stand_at(await self._gate.moment())

    async def compare(self, key: int) -> None:
        """Compare one key, record by record."""
        try:
            await self._compare(key)
        except KeyUnreadableError:
            self.drifts.append(Drift(KEY_NAMES[key - 1], "", "a key of another kind", None))

    async def _compare(self, key: int) -> None:
        known = len(self.drifts)
        seen: dict[str, Found] | None = {} if self._lay_out else None
        self.records += await self._scan(key, seen)
        if len(self.drifts) == known and await self._has_as_many(key):
            if seen is not None:
                self._history.state.lay_out(key, seen)
            return
        seen = {}
        await self._scan(key, seen)
        await self._look_at(
            key, [field for field in fields_of(self._history.state, key) if field not in seen]
        )

    async def _scan(self, key: int, seen: dict[str, Found] | None) -> int:
        """Compare whatever a key has, and fill in what that was; give how much it is."""
        chunk = CHUNK_SCORES if key in {DEADLINES_KEY, MOVES_KEY} else CHUNK_RECORDS
        cursor, count = b"", 0
        while len(self.drifts) < DRIFTS_MAX:
            with self._paced() as pace:
                page = await self._gate.scan(key, cursor, chunk)
                fields = _texts(page.fields)
                await self._settle(key, page.moment, fields, page.values)
                if seen is not None:
                    seen.update(zip(fields, page.values, strict=True))
                count += len(fields)
            await pace()
            cursor = page.following
            if not cursor:
                break
        return count

    async def _look_at(self, key: int, fields: list[str]) -> None:
        """Compare some fields, whether Redis has them or not."""
        for first in range(0, len(fields), CHUNK_NAMED):
            if len(self.drifts) >= DRIFTS_MAX:
                return
            lot = fields[first : first + CHUNK_NAMED]
            with self._paced() as pace:
                moment, found = await self._gate.records(key, list(map(_field_bytes, lot)))
                await self._settle(key, moment, lot, found)
            await pace()

    async def _has_as_many(self, key: int) -> bool:
        """Say whether a key whose fields are all right has all of them."""
        with self._paced() as pace:
            moment, count = await self._gate.count(key)
            # One that is missing and one that is new would make up for each other, but for the exact entry.
            await self._stand_at(moment)
            as_many = count == count_of(self._history.state, key)
        await pace()
        return as_many

    async def _settle(
        self, key: int, moment: Moment, fields: Sequence[str], values: Sequence[Found]
    ) -> None:
        state = self._history.state
        doubtful = differing(state, key, fields, values, moment.now_ms)
        if not doubtful:
            return
        await self._stand_at(moment)
        fields, values = zip(*doubtful, strict=True)
        for field, value in differing(state, key, fields, values, moment.now_ms):
            drift = drift_of(key, field, value, told(state, key, [field])[0])
            if len(self.drifts) < DRIFTS_MAX and drift not in self.drifts:
                self.drifts.append(drift)

    async def _stand_at(self, moment: Moment) -> None:
        await self._history.follow(moment.sequence)
        if (self._history.sequence, self._history.last_hash) != (moment.sequence, moment.last_hash):
            raise OtherHistoryError

    @contextmanager
    def _paced(self) -> Generator[Callable[[], Awaitable[None]]]:
        """Give the pause that keeps to the share of a processor, for after the work."""
        started, followed = time.process_time(), self._history.cpu_seconds
        taken = 0.0

        def pause() -> Awaitable[None]:
            return asyncio.sleep(max(PAUSE_SECONDS_MIN, taken / self._cpu_share_max - taken))

        with collector_paused():
            yield pause
        # What was sold meanwhile takes its time however seldom this looks.
        followed = self._history.cpu_seconds - followed
        taken = max(0.0, time.process_time() - started - followed)


class Verification:
    """Verifies one shard in rounds. What was read of the ledger is kept from one round to the next."""

    def __init__(
        self,
        gate: GateReads,
        ledger: ReadLedger,
        *,
        cpu_share_max: float = CPU_SHARE_MAX,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._gate, self._ledger, self._cpu_share_max = gate, ledger, cpu_share_max
        self._checkpoints, self._kept_sequence = checkpoints, 0
        # Opened by the first round.
        self._history: History | None = None
        self._was_right = False

    def forget(self) -> None:
        """Read the ledger from its first entry again in the next round, which checks all of it."""
        self._history = History(self._ledger)
        self._was_right = False

    async def run_round(self) -> Round:
        """Compare everything once.

        Raises GateUnverified where the gate has no state or a take-over came between, LedgerUnavailable where
        it does not have yet what the gate has decided, and ChainBroken where an entry of it is missing or altered.
        """
        history = self._history = self._history or await self._opened_history()
        was_right, self._was_right = self._was_right, False
        try:
            found = await self._compare_all(history, first=not was_right)
        except ChainBroken as broken:
            self.forget()
            if not await is_broken_at(self._ledger, broken.sequence):
                raise GateUnverified from broken
            raise
        except OtherHistoryError:
            return await self._judge_position(history)
        self._was_right = not found.drifts
        return found

    async def _opened_history(self) -> History:
        if self._checkpoints is None:
            return History(self._ledger)
        history = await self._checkpoints.begin()
        self._kept_sequence = history.sequence
        return history

    async def _compare_all(self, history: History, *, first: bool) -> Round:
        share = min(1.0, self._cpu_share_max * (FIRST_ROUND_FACTOR if first else 1))
        comparing = Comparing(self._gate, history, share, lay_out=first)
        await comparing.begin()
        for key in COMPARED_KEYS:
            await comparing.compare(key)
        await history.read_again(AGAIN_ENTRIES)
        if not comparing.drifts:
            await self._offer_checkpoint(history)
        return Round(history.sequence, comparing.records, comparing.drifts)

    async def _offer_checkpoint(self, history: History) -> None:
        kept = self._checkpoints
        if kept is None or history.sequence - self._kept_sequence <= kept.entries:
            return
        await kept.keep(self._ledger, history.state, history.sequence, history.last_hash)
        self._kept_sequence = history.sequence

    async def _judge_position(self, history: History) -> Round:
        """Find out whether the gate stands where no ledger does, or whether it was only read amid a take-over."""
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_SECONDS)
            if not await history.is_still_told():
                # The ledger itself has gone back: a standby was promoted that lacks what was read here.
                self.forget()
                raise GateUnverified
            try:
                await Comparing(self._gate, history, self._cpu_share_max).begin()
            except OtherHistoryError:
                continue
            raise GateUnverified
        moment = await self._gate.moment()
        head = await self._ledger.head()
        stands = f"{moment.sequence} {moment.last_hash}"
        told = f"{head.last_sequence} {head.last_hash}"
        return Round(history.sequence, 0, [Drift("meta", "sequence hash", stands, told)])


def _texts(fields: list[bytes]) -> list[str]:
    try:
        return list(map(bytes.decode, fields))
    except UnicodeDecodeError:
        return [field.decode("utf-8", "surrogateescape") for field in fields]


def _field_bytes(field: str) -> bytes:
    return field.encode("utf-8", "surrogateescape")
