"""What a simulated Redis holds of one shard, and the steps of a take-over, as load.lua does them."""

from collections.abc import Mapping

import msgspec

from allocation.journal import EventRecord
from allocation.model import Reservation
from allocation.outcomes import State
from allocation.ports import Identity
from allocation.rebuild import (
    CONFIGURATION_KEY,
    DEADLINES_KEY,
    EVENTS_KEY,
    MOVES_KEY,
    RESERVATIONS_KEY,
    STOCK_KEY,
)

HASH_KEYS = (STOCK_KEY, RESERVATIONS_KEY, EVENTS_KEY, CONFIGURATION_KEY)
StreamId = tuple[int, int]
# One item of the stream is one call: its id, and its entries by sequence.
Item = tuple[StreamId, list[tuple[int, bytes]]]

decode_reservation = msgspec.msgpack.Decoder(Reservation).decode
decode_event = msgspec.msgpack.Decoder(EventRecord).decode


class JournalRefusedError(Exception):
    """The stream does not take an entry with this id; nothing was written."""


class Store:
    """The keys of a shard. `copy` is cheap: records are bytes, which nobody changes."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.loading: int | None = None
        self.loading_at: Identity | None = None
        self.sequence, self.hash, self.last_ms = 0, "", 0
        self.records: dict[int, dict[str, bytes]] = {key: {} for key in HASH_KEYS}
        self.deadlines: dict[str, int] = {}
        self.moves: set[str] = set()
        self.journal: list[Item] = []
        self.last_id: StreamId = (0, 0)

    def copy(self) -> "Store":
        """Give a store that holds the same and is changed by itself."""
        other = Store()
        other.epoch, other.loading, other.loading_at = self.epoch, self.loading, self.loading_at
        other.sequence, other.hash, other.last_ms = self.sequence, self.hash, self.last_ms
        other.records = {key: dict(records) for key, records in self.records.items()}
        other.deadlines, other.moves = dict(self.deadlines), set(self.moves)
        other.journal, other.last_id = list(self.journal), self.last_id
        return other

    def add_to_journal(self, epoch: int, entries: list[tuple[int, bytes]]) -> None:
        """Write one item behind all others. Raises JournalRefusedError for an older epoch."""
        item_id = (epoch, entries[-1][0])
        if item_id <= self.last_id:
            raise JournalRefusedError
        self.journal.append((item_id, entries))
        self.last_id = item_id

    def trim_journal(self, epoch: int, durable_sequence: int) -> None:
        """Forget what is durable."""
        first_kept = (epoch, durable_sequence + 1)
        self.journal = [item for item in self.journal if item[0] >= first_kept]

    def entries_after(self, sequence: int) -> list[tuple[int, bytes]]:
        """Give what the journal still has after a sequence."""
        return [entry for _, item in self.journal for entry in item if entry[0] > sequence]

    def write(self, changed: Mapping[tuple[int, str], bytes | None]) -> None:
        """Write the records that a call changed, and when each is to be looked at again."""
        for (key, field), packed in changed.items():
            if packed is None:
                self.records[key].pop(field, None)
            else:
                self.records[key][field] = packed
            self._write_deadline(key, field, packed)

    def _write_deadline(self, key: int, field: str, packed: bytes | None) -> None:
        if key == RESERVATIONS_KEY:
            member, deadline_ms = f"r{field}", 0
            if packed is not None:
                record = decode_reservation(packed)
                held = record.state is State.HELD
                deadline_ms = record.deadline_ms if held else -record.deadline_ms
        elif key == EVENTS_KEY:
            member, deadline_ms = f"e{field}", 0
            if packed is not None:
                deadline_ms = -decode_event(packed).deadline_ms
        else:
            return
        if deadline_ms:
            self.deadlines[member] = deadline_ms
        else:
            self.deadlines.pop(member, None)

    def load_step(
        self, here: Identity, step: str, epoch: int, arguments: tuple[str | bytes | int, ...]
    ) -> bool:
        """Do one step of a take-over; False where a newer one, or another state, is there."""
        if max(self.epoch or 0, self.loading or 0) > epoch:
            return False
        if step == "begin":
            self.__init__()
            self.loading, self.loading_at = epoch, here
            self.last_id = (0, 1)
            self.journal = [(self.last_id, [])]
        elif step == "arm":
            if self.epoch is None or (self.sequence, self.hash) != arguments:
                return False
            self.epoch = epoch
        elif (self.loading, self.loading_at) != (epoch, here):
            return False
        elif step == "put":
            self._put(arguments)
        else:
            self.sequence, self.hash, self.last_ms = arguments
            self.epoch, self.loading, self.loading_at = epoch, None, None
        return True

    def _put(self, arguments: tuple[str | bytes | int, ...]) -> None:
        key, *parts = arguments
        pairs = zip(parts[::2], parts[1::2], strict=True)
        if key == DEADLINES_KEY:
            self.deadlines.update((member, at_ms) for at_ms, member in pairs)
        elif key == MOVES_KEY:
            self.moves.update(member for _, member in pairs)
        else:
            self.records[key].update(pairs)
