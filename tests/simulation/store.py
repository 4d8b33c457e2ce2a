"""What a simulated Redis holds of one shard, and the steps of a take-over, as load.lua does them."""

from collections.abc import Mapping

import msgspec

from allocation.folding import (
    CONFIGURATION_KEY,
    DEADLINES_KEY,
    EVENTS_KEY,
    MOVES_KEY,
    RESERVATIONS_KEY,
    STOCK_KEY,
)
from allocation.journal import EventRecord
from allocation.model import Reservation
from allocation.outcomes import State

HASH_KEYS = (STOCK_KEY, RESERVATIONS_KEY, EVENTS_KEY, CONFIGURATION_KEY)
StreamId = tuple[int, int]
# One item of the stream is one call: its id, and its entries by sequence.
Item = tuple[StreamId, list[tuple[int, bytes]]]

# What a load step comes with.
Arguments = tuple[str | bytes | int, ...]
_TEXT_HEAD_BYTES = {0xD9: 2, 0xDA: 3, 0xDB: 5}

_decode_values = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
decode_reservation = msgspec.msgpack.Decoder(Reservation).decode
decode_event = msgspec.msgpack.Decoder(EventRecord).decode


class JournalRefusedError(Exception):
    """The stream does not take an entry with this id; nothing was written."""


class Store:
    """The keys of a shard. `copy` is cheap: records are bytes, which nobody changes."""

    def __init__(self) -> None:
        self.epoch: int | None = None
        self.loading: int | None = None
        # How many steps of the load have changed something.
        self.loaded = 0
        self.sequence, self.hash, self.last_ms = 0, "", 0
        self.records: dict[int, dict[str, bytes]] = {key: {} for key in HASH_KEYS}
        self.deadlines: dict[str, int] = {}
        self.moves: set[str] = set()
        self.journal: list[Item] = []
        self.last_id: StreamId = (0, 0)

    def copy(self) -> "Store":
        """Give a store that holds the same and is changed by itself."""
        other = Store()
        other.epoch, other.loading, other.loaded = self.epoch, self.loading, self.loaded
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

    @property
    def newest_epoch(self) -> int:
        """The highest epoch that has opened this store or begun to load it."""
        return max(self.epoch or 0, self.loading or 0)

    def load_step(self, step: str, epoch: int, arguments: Arguments) -> bool:
        """Do one step of a take-over; False where a newer one, or another state, is there."""
        if self.newest_epoch > epoch:
            return False
        if step == "begin":
            self._begin(epoch)
        elif step == "close":
            if self.epoch is None or (self.epoch, self.sequence, self.hash) != arguments:
                return False
            self.epoch, self.loading, self.loaded = None, epoch, 0
        elif step == "arm":
            if self.epoch is None or (self.sequence, self.hash) != arguments:
                return False
            self.epoch = epoch
        elif self.loading != epoch:
            return False
        elif step == "open":
            return self._open(epoch, *arguments)
        else:
            self._change(step, arguments)
            self.loaded += 1
        return True

    def forget_moves(self, first: str, kept: str) -> None:
        """Forget the moves from one on, and before the one that is kept."""
        self.moves = {member for member in self.moves if not first <= member < kept}

    def _begin(self, epoch: int) -> None:
        self.__init__()
        self.loading = epoch
        self.last_id = (0, 1)
        self.journal = [(self.last_id, [])]

    def _open(
        self, epoch: int, sequence: int, last_hash: str, last_ms: int, steps: int = 0
    ) -> bool:
        if self.loaded != steps:
            return False
        self.sequence, self.hash, self.last_ms = sequence, last_hash, last_ms
        self.epoch, self.loading, self.loaded = epoch, None, 0
        return True

    def _change(self, step: str, arguments: Arguments) -> None:
        key, values = arguments[0], unpacked(arguments[-1])
        if step == "remove":
            fields = self.deadlines if key == DEADLINES_KEY else self.records[key]
            for name in values:
                fields.pop(name.decode(), None)
            return
        pairs = list(zip(values[::2], values[1::2], strict=True))
        if step == "forget":
            for first, kept in pairs:
                self.forget_moves(first.decode(), kept.decode())
        elif key == DEADLINES_KEY:
            self.deadlines.update((member.decode(), int(at_ms)) for at_ms, member in pairs)
        elif key == MOVES_KEY:
            self.moves.update(member.decode() for _, member in pairs)
        else:
            self.records[key].update((field.decode(), record) for field, record in pairs)


def unpacked(body: bytes) -> list[bytes]:
    """Give the values of a load step, each of which is packed as a text."""
    values = map(bytes, _decode_values(body))
    return [value[_TEXT_HEAD_BYTES.get(value[0], 1) :] for value in values]
