"""What clients asked and what they were told, line by line, in the order in which it happened."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

FILE_NAME = "history.jsonl"
# The answers that promise that nothing was done (docs/api.md); whatever else is no success is not known.
_NOTHING_DONE = {
    400: {"invalid-request"},
    404: {"unknown-reservation", "not-found"},
    408: {"request-timeout"},
    409: {"insufficient-stock", "hold-lost", "already-committed", "already-shipped"},
    410: {"idempotency-key-expired"},
    422: {"idempotency-mismatch", "unknown-sku", "unknown-channel", "unknown-location"},
    429: {"too-many-requests"},
    503: {"ledger-unavailable", "gate-unverified", "gate-full"},
}
# Of those, the ones that say no more than "not now".
NOT_NOW = frozenset({"request-timeout", "too-many-requests", *_NOTHING_DONE[503]})


class Operation(Struct, frozen=True):
    """One thing that a client wants; every attempt at it sends the same."""

    number: int
    client: str
    kind: str
    # The reservation's id, the event's id, or the SKU.
    key: str
    method: str
    path: str
    body: Any = None


class Attempt(Struct):
    """One request and what came of it: ok, fail, info, or nothing yet. Places are lines of the history."""

    operation: Operation
    service: str
    invoked_at: int
    invoked_seconds: float
    completed_at: int | None = None
    completed_seconds: float = 0.0
    verdict: str = "info"
    status: int = 0
    answer: Any = None
    slug: str = ""
    reason: str = ""
    # Whether a success says that it had been done before.
    replayed: bool = False


def judge(status: int, answer: Any) -> tuple[str, str]:
    """Say what an answer promises, ok, fail or info, and the slug of its problem."""
    if status in {200, 201}:
        return "ok", ""
    slug = str(answer.get("type", "")).rpartition("/")[2] if isinstance(answer, dict) else ""
    done = answer.get("done") if isinstance(answer, dict) else None
    nothing = done == "nothing" and slug in _NOTHING_DONE.get(status, ())
    return ("fail" if nothing else "info"), slug


class Recorder:
    """Writes the history while it happens."""

    def __init__(
        self, path: Path, started: float, on_operation: Callable[[int], None] = lambda _: None
    ) -> None:
        self.lines = 0
        self.operations = 0
        self.attempts = 0
        self.on_operation = on_operation
        self._file = path.open("wb")
        self._started = started

    def begin(self, operation: Operation, service: str) -> int:
        """Note a request that is about to be sent; give the number of the attempt."""
        self.attempts += 1
        self._write(
            {
                "type": "invoke",
                "attempt": self.attempts,
                "service": service,
                "operation": operation,
            }
        )
        return self.attempts

    def end(self, attempt: int, verdict: str, **known: object) -> None:
        """Note what came of it."""
        self._write({"type": verdict, "attempt": attempt, **known})

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, object]) -> None:
        line["seconds"] = round(time.monotonic() - self._started, 4)
        self._file.write(msgspec.json.encode(line) + b"\n")
        self.lines += 1


def read_history(path: Path) -> list[Attempt]:
    """Read every attempt, in the order in which they were begun."""
    attempts: dict[int, Attempt] = {}
    operations: dict[int, Operation] = {}
    for place, text in enumerate(path.read_bytes().splitlines()):
        line = msgspec.json.decode(text)
        number = line["attempt"]
        if line["type"] == "invoke":
            operation = msgspec.convert(line["operation"], Operation)
            operation = operations.setdefault(operation.number, operation)
            attempts[number] = Attempt(operation, line["service"], place, line["seconds"])
            continue
        attempt = attempts[number]
        attempt.completed_at, attempt.completed_seconds = place, line["seconds"]
        attempt.verdict, attempt.status = line["type"], line.get("status", 0)
        attempt.answer, attempt.slug = line.get("answer"), line.get("slug", "")
        attempt.reason = line.get("reason", "")
        attempt.replayed = line.get("replayed", False)
    return list(attempts.values())
