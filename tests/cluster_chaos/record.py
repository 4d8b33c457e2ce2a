"""What a run has written down, read back: the history, and of each shard its ledger and its part of it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from chaos.history import FILE_NAME, NOTHING, Attempt, Operation, read_history
from chaos.record import Record, Row
from cluster_chaos.plan import SHARDS
from msgspec import Raw, structs

from allocation.journal import Entry
from allocation.model import Reservation
from allocation.outcomes import Kind, State
from allocation.shards.routing import shard_of

FINAL_NAME = "final.json"
_decode_row = msgspec.json.Decoder(Row).decode
_encode = msgspec.json.Encoder().encode

# What each row did to a reservation on one shard.
Leg = list[tuple[Row, Reservation]]


def ledger_name(shard: int) -> str:
    """Name the file with a shard's rows."""
    return f"ledger-{shard}.jsonl"


class Whole:
    """Everything that is known of a run over several shards."""

    def __init__(
        self,
        attempts: Iterable[Attempt],
        ledgers: Sequence[Iterable[Row]],
        final: dict[str, Any],
        logs: dict[str, str] | None = None,
    ) -> None:
        self.attempts, self.final, self.logs = list(attempts), final, logs or {}
        self.shards = [
            Record(_cut(self.attempts, shard), rows, final | {"head": final["heads"][shard]})
            for shard, rows in enumerate(ledgers)
        ]

    @cached_property
    def by_key(self) -> dict[tuple[str, str], list[Attempt]]:
        """Every attempt at each kind of operation on each key."""
        found: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
        for attempt in self.attempts:
            found[attempt.operation.kind, attempt.operation.key].append(attempt)
        return dict(found)

    @cached_property
    def rows(self) -> dict[tuple[Kind, str], dict[int, list[Row]]]:
        """Every row of each kind about each key, by shard."""
        found: dict[tuple[Kind, str], dict[int, list[Row]]] = defaultdict(dict)
        for shard, record in enumerate(self.shards):
            for row in record.rows:
                found[Kind(row.kind), row.key].setdefault(shard, []).append(row)
        return found

    @cached_property
    def legs(self) -> dict[str, dict[int, Leg]]:
        """Every state of each reservation on each shard that has decided about it."""
        found: dict[str, dict[int, Leg]] = defaultdict(dict)
        for shard, record in enumerate(self.shards):
            for row in record.rows:
                for key, reservation in row.entry.reservations:
                    if reservation is not None:
                        found[key].setdefault(shard, []).append((row, reservation))
        return found

    def last(self, key: str) -> dict[int, State]:
        """Give the state in which each leg of a reservation was left."""
        return {shard: leg[-1][1].state for shard, leg in self.legs.get(key, {}).items()}

    def took(self, key: str, *kinds: Kind) -> set[int]:
        """Give the shards that have a row of one of some kinds about a key."""
        return {shard for kind in kinds for shard in self.rows.get((kind, key), {})}


def read_whole(folder: Path) -> Whole:
    """Read a run back."""
    ledgers = [
        [_decode_row(text) for text in (folder / ledger_name(shard)).read_bytes().splitlines()]
        for shard in range(SHARDS)
    ]
    final = msgspec.json.decode((folder / FINAL_NAME).read_bytes())
    logs = {
        path.name: path.read_text(encoding="utf-8", errors="replace")
        for path in folder.glob("service-*.log")
    }
    return Whole(read_history(folder / FILE_NAME), ledgers, final, logs)


def shards_of(body: dict[str, Any]) -> set[int]:
    """Give the shards that the lines of a body lie on."""
    return {shard_of(each["sku"], SHARDS) for each in body["lines"]}


def own(row: Row, entry: Entry) -> Reservation:
    """Give the reservation that a row is about; others may have given way to it."""
    return next(
        known for key, known in entry.reservations if key == row.subject and known is not None
    )


def _cut(attempts: Iterable[Attempt], shard: int) -> list[Attempt]:
    """Give what was asked of one shard: lines of other shards are left out, and figures of theirs."""
    operations: dict[int, Operation | None] = {}
    found: list[Attempt] = []
    for attempt in attempts:
        known = attempt.operation
        if known.number not in operations:
            operations[known.number] = _cut_operation(known, shard)
        operation = operations[known.number]
        if operation is not None:
            told = attempt.told
            if known.kind == "availability" and attempt.verdict == "ok":
                answer = attempt.answer
                answer["items"] = [each for each in answer["items"] if _is_of(each, shard)]
                if not answer["items"]:
                    continue
                told = _encode(answer)
            found.append(structs.replace(attempt, operation=operation, told=told))
    return found


def _cut_operation(operation: Operation, shard: int) -> Operation | None:
    if operation.kind == "stock":
        return operation if shard_of(operation.key, SHARDS) == shard else None
    if operation.kind == "configure" and operation.key.startswith(("HOT", "COLD")):
        return operation if shard_of(operation.key, SHARDS) == shard else None
    if operation.sent == NOTHING or "lines" not in operation.body:
        return operation
    lines = [each for each in operation.body["lines"] if _is_of(each, shard)]
    if not lines:
        return None
    return structs.replace(operation, sent=Raw(_encode(operation.body | {"lines": lines})))


def _is_of(each: dict[str, Any], shard: int) -> bool:
    return shard_of(each["sku"], SHARDS) == shard
