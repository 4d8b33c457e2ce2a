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
    expected,
    fields_of,
)
from allocation.errors import ChainBroken, GateUnverified
from allocation.folding import DEADLINES_KEY, MOVES_KEY, FoldedState
from allocation.gate.keys import KEY_NAMES
from allocation.history import History, ReadLedger, is_broken_at
from allocation.ports import KeyUnreadableError, Moment

# So many records keep the gate from deciding for half a millisecond; a sorted set takes twice as long as a hash.
CHUNK_RECORDS, CHUNK_SCORES = 500, 250
PAUSE_SECONDS_MIN = 0.001
# How much of one processor the comparing may take, however large the shard is. Redis takes half as much again, so
# that both stay under a hundredth. The first round cannot rest upon an earlier one, and should not take long.
CPU_SHARE_MAX = 0.004
FIRST_ROUND_FACTOR = 10
DRIFTS_MAX = 1_000
# Of what was read before, so many entries are checked once more in each round.
AGAIN_ENTRIES = 2_000
CHECKPOINT_ENTRIES = 100_000
# Where more than one in so many has changed, everything is compared.
_CHANGED_SHARE = 5
_LOOKS, _LOOK_SECONDS = 5, 0.1

# Called with the ledger, the state that it tells, and the sequence and hash of the entry where it tells that.
KeepCheckpoint = Callable[[ReadLedger, FoldedState, int, str], Awaitable[None]]


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

    async def scan(self, key: int, cursor: int, count: int) -> tuple[Moment, int, list[bytes]]:
        """Read some fields, each with its record or the text of its score, and the cursor that continues."""
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
        self,
        gate: GateReads,
        history: History,
        cpu_share_max: float,
        right: dict[int, dict[int, int]] | None = None,
    ) -> None:
        self.records = 0
        # By key and cursor, a digest of what Redis told there and was right.
        self._right = {} if right is None else right
        self.drifts: list[Drift] = []
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
        changed = self._history.state.changed[key]
        self._history.state.changed[key] = set()
        if len(changed) * _CHANGED_SHARE > count_of(self._history.state, key):
            # To look at each of them costs more than to compare everything.
            self._right.pop(key, None)
            changed = set[str]()
        self.records += await self._scan(key, None)
        await self._look_at(key, list(changed))
        if len(self.drifts) == known and await self._has_as_many(key):
            return
        seen: set[str] = set()
        await self._scan(key, seen)
        await self._look_at(
            key, [field for field in fields_of(self._history.state, key) if field not in seen]
        )

    async def _scan(self, key: int, seen: set[str] | None) -> int:
        """Compare whatever a key has; give how much that is.

        What Redis told in the same words in an earlier round, and was right, is right but for what entries have
        changed since, which is looked at by itself. Where `seen` is to be filled, everything is compared.
        """
        right = self._right.setdefault(key, {})
        cursor, following, count = 0, -1, 0
        chunk = CHUNK_SCORES if key in {DEADLINES_KEY, MOVES_KEY} else CHUNK_RECORDS
        while following != 0 and len(self.drifts) < DRIFTS_MAX:
            with self._paced() as pace:
                moment, following, flat = await self._gate.scan(key, cursor, chunk)
                count += len(flat) // 2
                words, known = hash(tuple(flat)), len(self.drifts)
                if seen is not None or right.get(cursor) != words:
                    found = _named(key, flat)
                    await self._settle(key, moment, found)
                    if seen is not None:
                        seen.update([field for field, _ in found])
                    if len(self.drifts) == known:
                        right[cursor] = words
                cursor = following
            await pace()
        return count

    async def _look_at(self, key: int, fields: list[str]) -> None:
        """Compare some fields, whether Redis has them or not."""
        for first in range(0, len(fields), CHUNK_SCORES):
            if len(self.drifts) >= DRIFTS_MAX:
                return
            lot = fields[first : first + CHUNK_SCORES]
            with self._paced() as pace:
                moment, found = await self._gate.records(key, list(map(_field_bytes, lot)))
                await self._settle(key, moment, list(zip(lot, found, strict=True)))
            await pace()

    async def _has_as_many(self, key: int) -> bool:
        """Say whether a key whose fields are all right has all of them."""
        moment, count = await self._gate.count(key)
        # One that is missing and one that is new would make up for each other, but for the exact entry.
        await self._stand_at(moment)
        return count == count_of(self._history.state, key)

    async def _settle(self, key: int, moment: Moment, found: list[tuple[str, Found]]) -> None:
        state = self._history.state
        doubtful = differing(state, key, found, moment.now_ms)
        if not doubtful:
            return
        await self._stand_at(moment)
        for field, value in differing(state, key, doubtful, moment.now_ms):
            drift = drift_of(key, field, value, expected(state, key, field))
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
        keep_checkpoint: KeepCheckpoint | None = None,
        checkpoint_entries: int = CHECKPOINT_ENTRIES,
    ) -> None:
        self._gate, self._ledger, self._cpu_share_max = gate, ledger, cpu_share_max
        self._keep_checkpoint, self._checkpoint_entries = keep_checkpoint, checkpoint_entries
        self._kept_sequence = 0
        self._history = History(ledger)
        self._right: dict[int, dict[int, int]] = {}

    def forget(self) -> None:
        """Read the ledger from its first entry again in the next round, which checks all of it."""
        self._history = History(self._ledger)
        self._right = {}

    async def run_round(self) -> Round:
        """Compare everything once.

        Raises GateUnverified where the gate has no state or a take-over came between, LedgerUnavailable where
        it does not have yet what the gate has decided, and ChainBroken where an entry of it is missing or altered.
        """
        # What a round has not looked at to its end, the next one must not take for right.
        right, self._right = self._right, {}
        try:
            found = await self._compare_all(right)
        except ChainBroken as broken:
            self.forget()
            if not await is_broken_at(self._ledger, broken.sequence):
                raise GateUnverified from broken
            raise
        except OtherHistoryError:
            return await self._judge_position()
        if not found.drifts:
            self._right = right
        return found

    async def _compare_all(self, right: dict[int, dict[int, int]]) -> Round:
        share = self._cpu_share_max if right else FIRST_ROUND_FACTOR * self._cpu_share_max
        comparing = Comparing(self._gate, self._history, min(1.0, share), right)
        await comparing.begin()
        for key in COMPARED_KEYS:
            await comparing.compare(key)
        await self._history.read_again(AGAIN_ENTRIES)
        if not comparing.drifts:
            await self._offer_checkpoint()
        return Round(self._history.sequence, comparing.records, comparing.drifts)

    async def _offer_checkpoint(self) -> None:
        history = self._history
        if (
            self._keep_checkpoint is None
            or history.sequence - self._kept_sequence <= self._checkpoint_entries
        ):
            return
        await self._keep_checkpoint(
            self._ledger, history.state, history.sequence, history.last_hash
        )
        self._kept_sequence = history.sequence

    async def _judge_position(self) -> Round:
        """Find out whether the gate stands where no ledger does, or whether it was only read amid a take-over."""
        for _ in range(_LOOKS):
            await asyncio.sleep(_LOOK_SECONDS)
            if not await self._history.is_still_told():
                # The ledger itself has gone back: a standby was promoted that lacks what was read here.
                self.forget()
                raise GateUnverified
            try:
                await Comparing(self._gate, self._history, self._cpu_share_max).begin()
            except OtherHistoryError:
                continue
            raise GateUnverified
        moment = await self._gate.moment()
        head = await self._ledger.head()
        stands = f"{moment.sequence} {moment.last_hash}"
        told = f"{head.last_sequence} {head.last_hash}"
        return Round(self._history.sequence, 0, [Drift("meta", "sequence hash", stands, told)])


def _named(key: int, flat: list[bytes]) -> list[tuple[str, Found]]:
    fields = [field.decode("utf-8", "surrogateescape") for field in flat[::2]]
    values = map(float, flat[1::2]) if key in {DEADLINES_KEY, MOVES_KEY} else flat[1::2]
    return list(zip(fields, values, strict=True))


def _field_bytes(field: str) -> bytes:
    return field.encode("utf-8", "surrogateescape")
