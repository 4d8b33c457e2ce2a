"""Whether every delivery that was taken had one effect, or lies where a person will look."""

from collections import Counter, defaultdict
from typing import Any

import msgspec
from chaos.record import Record
from chaos.warehouse import UNKNOWN_SKU


def deliveries_have_one_effect(record: Record) -> list[str]:
    """C14: what was applied and what is dead is what was taken; each is in the ledger once, or not at all."""
    inbox: list[dict[str, Any]] = record.final.get("inbox", [])
    first = {row["webhook_id"]: row for row in inbox if not row["is_other_body"]}
    stored = Counter((row["webhook_id"], _plain(row["body"])) for row in inbox)
    sent, taken = _bodies(record, {"ok", "fail", "info"}), _bodies(record, {"ok"})
    wrong = [
        f"{delivery_id} was taken and is not there"
        for delivery_id, bodies in taken.items()
        for body in bodies
        if not stored[delivery_id, body]
    ]
    wrong += [
        f"{delivery_id} is there {count} times"
        for (delivery_id, _), count in stored.items()
        if count > 1
    ]
    wrong += [
        f"{delivery_id} is there, and nobody sent it like that"
        for delivery_id, body in stored
        if body not in sent.get(delivery_id, set())
    ]
    for delivery_id, row in first.items():
        rows = record.rows_by_key.get(("deliver", delivery_id), [])
        due = _due(row)
        if row["state"] != due:
            wrong.append(f"{delivery_id} is {row['state']}, not {due}: {row['reason']}")
        if len(rows) != (row["state"] == "applied"):
            wrong.append(f"{delivery_id} is {row['state']} and has {len(rows)} rows in the ledger")
    wrong += [
        f"{key} was applied without having been taken"
        for kind, key in record.rows_by_key
        if kind == "deliver" and key not in first
    ]
    return wrong + [
        f"{row['webhook_id']} came with another body and is {row['state']}"
        for row in inbox
        if row["is_other_body"] and row["state"] != "dead"
    ]


def _bodies(record: Record, verdicts: set[str]) -> dict[str, set[bytes]]:
    """Give every body that was sent under each id, of attempts with these verdicts."""
    found: dict[str, set[bytes]] = defaultdict(set)
    for (kind, key), attempts in record.by_key.items():
        if kind == "deliver":
            found[key] |= {
                msgspec.json.encode(attempt.operation.body)
                for attempt in attempts
                if attempt.verdict in verdicts
            }
    return found


def _plain(body: str) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(body))


def _due(row: dict[str, Any]) -> str:
    lines = msgspec.json.decode(row["body"])["lines"]
    return "dead" if any(line["sku"] == UNKNOWN_SKU for line in lines) else "applied"
