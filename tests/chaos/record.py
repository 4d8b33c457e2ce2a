"""What a run has written down, read back for the checkers: history, ledger, and what there was in the end."""

from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from chaos.history import FILE_NAME, Attempt, read_history
from chaos.warehouse import SOURCE
from msgspec import Struct

from allocation.journal import Entry, decode_entry
from allocation.model import Reservation
from allocation.outcomes import Kind

LEDGER_NAME, FINAL_NAME = "ledger.jsonl", "final.json"
# Which rows an operation makes.
ROWS_OF = {
    "reserve": (Kind.HELD, Kind.REFUSED),
    "confirm": (Kind.COMMITTED,),
    "release": (Kind.RELEASED,),
    "extend": (Kind.EXTENDED,),
    "move": (Kind.MOVED,),
    "configure": (Kind.CONFIGURED,),
}
KIND_OF_OPERATION = {kind: name for name, kinds in ROWS_OF.items() for kind in kinds}


class Row(Struct, frozen=True, gc=False):
    """One row of the ledger. Its body is read anew by whoever looks: read, millions would not fit."""

    sequence: int
    epoch: int
    at_ms: int
    kind: int
    subject: str
    hash: str
    body: bytes

    @property
    def entry(self) -> Entry:
        return decode_entry(self.body)

    @property
    def operation(self) -> str | None:
        """What kind of operation made it; None for what happens by itself."""
        if self.kind == Kind.MOVED and self.subject.startswith(f"{SOURCE}\x1f"):
            return "deliver"
        return KIND_OF_OPERATION.get(Kind(self.kind))

    @property
    def key(self) -> str:
        """What the operation that made it calls its key."""
        if self.kind == Kind.MOVED:
            return self.subject.partition("\x1f")[2]
        if self.kind == Kind.CONFIGURED:
            return self.subject.partition(":")[2]
        return self.subject


_decode_row = msgspec.json.Decoder(Row).decode
Life = list[tuple[int, Reservation]]


class Record:
    """Everything that is known of a run. `final` is what final.json says."""

    def __init__(
        self,
        attempts: Iterable[Attempt],
        rows: Iterable[Row],
        final: dict[str, Any],
        logs: dict[str, str] | None = None,
    ) -> None:
        self.attempts, self.rows, self.final = list(attempts), list(rows), final
        self.logs = logs or {}

    @cached_property
    def by_key(self) -> dict[tuple[str, str], list[Attempt]]:
        """Every attempt at each kind of operation on each key."""
        found: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            found[attempt.operation.kind, attempt.operation.key].append(attempt)
        return dict(found)

    @cached_property
    def rows_by_key(self) -> dict[tuple[str, str], list[Row]]:
        """Every row that each kind of operation made on each key."""
        found: dict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in self.rows:
            if row.operation is not None:
                found[row.operation, row.key].append(row)
        return dict(found)

    @cached_property
    def bodies_taken(self) -> dict[str, Any]:
        """The body that counts where a delivery came with several: the first that was stored."""
        return {
            row["webhook_id"]: msgspec.json.decode(row["body"])
            for row in self.final.get("inbox", [])
            if not row["is_other_body"]
        }

    @cached_property
    def reservations(self) -> dict[str, list[Row]]:
        """Every row that changed each reservation."""
        found: dict[str, list[Row]] = defaultdict(list)
        for row in self.rows:
            for key, reservation in row.entry.reservations:
                if reservation is not None:
                    found[key].append(row)
        return dict(found)

    def life(self, key: str) -> Life:
        """Give every state of a reservation, with the sequence from which on it was in force."""
        return [
            (row.sequence, reservation)
            for row in self.reservations.get(key, ())
            for name, reservation in row.entry.reservations
            if name == key and reservation is not None
        ]


def read_record(folder: Path) -> Record:
    """Read a run back."""
    with (folder / LEDGER_NAME).open("rb") as file:
        rows = [_decode_row(line) for line in file]
    final = msgspec.json.decode((folder / FINAL_NAME).read_bytes())
    logs = {
        path.name: path.read_text(encoding="utf-8", errors="replace")
        for path in folder.glob("service-*.log")
    }
    return Record(read_history(folder / FILE_NAME), rows, final, logs)


def unpacked(records: dict[str, str]) -> dict[str, bytes]:
    """Give the gate's records as the gate has them."""
    return {field: b64decode(packed) for field, packed in records.items()}


def wanted_by_sku(body: dict[str, Any]) -> dict[str, int]:
    """Sum what a cart asks for."""
    wanted: dict[str, int] = defaultdict(int)
    for line in body["lines"]:
        wanted[line["sku"]] += line["quantity"]
    return dict(wanted)
