"""A long ledger, written at once: entries as the gate packs them, each chained to the one before."""

import random
import time
from collections.abc import Iterator, Sequence

import asyncpg
import msgspec

from allocation.commands import Movement
from allocation.journal import GENESIS_HASH, chain
from allocation.ledger.queries import named_queries
from allocation.model import Line, Reservation
from allocation.outcomes import Kind, State

EPOCH = 1
UNITS = 1_000
SKUS_PER_MOVEMENT = 20
DAY_MS = 86_400_000
FINGERPRINT = "0123456789abcdefghij"
# Of a hundred sales: those that stay held, those that are bought; the rest is released.
HELD_OF_100, BOUGHT_OF_100 = 30, 60
COLUMNS = ("shard", "sequence", "epoch", "at_ms", "kind", "subject", "hash", "body")

Row = tuple[int, int, int, int, int, str, str, bytes]
Records = Sequence[tuple[str, msgspec.Raw]]
_pack = msgspec.msgpack.Encoder().encode


class LongLedger:
    """What a shop with one channel and two locations has journaled: its catalogue, its stock, then sales alone."""

    def __init__(self, shard: int, skus: Sequence[str], entries: int) -> None:
        self.sequence, self.last_hash = 0, GENESIS_HASH
        self._shard, self._skus, self._entries = shard, skus, entries
        self._first_ms = int(time.time() * 1000) - entries
        self._promised = dict.fromkeys(skus, (0, 0))
        self._random = random.Random(entries)

    async def write(self, connection: asyncpg.Connection) -> None:
        """Copy all entries into a ledger that has none, and set its head."""
        await connection.copy_records_to_table("ledger", records=self._rows(), columns=COLUMNS)
        statement = named_queries("benchmarks")["set_head"]
        await connection.execute(statement, self._shard, EPOCH, self.sequence, self.last_hash)
        await connection.execute(named_queries("benchmarks")["analyse_ledger"])

    def _rows(self) -> Iterator[Row]:
        yield from self._catalogue()
        yield from self._receipts()
        while self.sequence < self._entries:
            yield from self._sale(f"{self.sequence:08d}-0000-4000-8000-{self.sequence:012d}")

    def _catalogue(self) -> Iterator[Row]:
        for code, name in (("LON", "London"), ("NYC", "New York")):
            yield self._configured(f"location:{code}", [name])
        yield self._configured("channel:web", ["Web shop", ["LON", "NYC"]])
        for sku in self._skus:
            record = [(sku, self._stock([]))]
            yield self._row(Kind.CONFIGURED, f"sku:{sku}", stock=record)

    def _configured(self, key: str, values: list[object]) -> Row:
        record = msgspec.Raw(_pack([self.sequence + 1, *values]))
        return self._row(Kind.CONFIGURED, key, configuration=[(key, record)])

    def _receipts(self) -> Iterator[Row]:
        for first in range(0, len(self._skus), SKUS_PER_MOVEMENT):
            skus, key = self._skus[first : first + SKUS_PER_MOVEMENT], f"bench\x1f{first}"
            now_ms, sequence = self._first_ms + self.sequence, self.sequence + 1
            moves: list[tuple[str, str]] = []
            for sku in skus:
                prefix = f"{sku}\0LON\0"
                moves += [
                    ("", f"{prefix}{now_ms:015d}\0{sequence}.{len(moves)}\0{UNITS}"),
                    (prefix, f"{prefix}{now_ms - 30 * DAY_MS:015d}"),
                ]
            yield self._row(
                Kind.MOVED,
                key,
                stock=[(sku, self._stock(["LON", UNITS, 0, 0, 0, 0, 0, 0])) for sku in skus],
                events=[(key, [FINGERPRINT, sequence, now_ms + 14 * DAY_MS])],
                moves=moves,
                detail=[int(Movement.RECEIPT), 0, "", [[sku, "LON", UNITS] for sku in skus]],
            )

    def _sale(self, reservation_id: str) -> Iterator[Row]:
        sku, lot = self._random.choice(self._skus), self._random.randrange(100)
        yield self._promise(Kind.HELD, State.HELD, reservation_id, sku, (1, 0))
        if lot < HELD_OF_100 or self.sequence == self._entries:
            return
        bought = lot < HELD_OF_100 + BOUGHT_OF_100
        kind, state = (
            (Kind.COMMITTED, State.COMMITTED) if bought else (Kind.RELEASED, State.RELEASED)
        )
        yield self._promise(kind, state, reservation_id, sku, (-1, int(bought)))

    def _promise(
        self, kind: Kind, state: State, reservation_id: str, sku: str, change: tuple[int, int]
    ) -> Row:
        reserved, committed = (
            units + more for units, more in zip(self._promised[sku], change, strict=True)
        )
        self._promised[sku] = (reserved, committed)
        deadline_ms = 0 if state is State.COMMITTED else self._first_ms + self._entries + DAY_MS
        record = Reservation(
            state,
            self.sequence + 1,
            FINGERPRINT,
            "web",
            deadline_ms,
            "",
            "",
            (Line(sku, 1, "LON", 0, 0, pinned=False),),
            (),
        )
        pool = ["LON", UNITS, 0, 0, 0, 0, 0, 1, "web", reserved, committed]
        return self._row(
            kind,
            reservation_id,
            reservations=[(reservation_id, record)],
            stock=[(sku, self._stock(pool))],
        )

    def _stock(self, values: list[str | int]) -> msgspec.Raw:
        # The gate's Lua packs the array with a head of three bytes, whatever its length, and counts on it.
        head = b"\x92" + _pack(self.sequence + 1) + b"\xdc" + len(values).to_bytes(2, "big")
        return msgspec.Raw(head + b"".join(map(_pack, values)))

    def _row(self, kind: Kind, subject: str, **changes: object) -> Row:
        at_ms = self._first_ms + self.sequence
        records = [
            changes.get(name, ())
            for name in ("reservations", "stock", "events", "configuration", "moves")
        ]
        body = _pack([int(kind), at_ms, subject, *records, changes.get("detail")])
        self.sequence, self.last_hash = self.sequence + 1, chain(self.last_hash, body)
        return (
            self._shard,
            self.sequence,
            EPOCH,
            at_ms,
            int(kind),
            subject,
            self.last_hash,
            body,
        )
