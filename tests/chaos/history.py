"""What clients asked and what they were told, line by line, in the order in which it happened."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

FILE_NAME = "history.jsonl"
# What the recorder keeps back; it is written out at least once a second.
BUFFER_BYTES = 1 << 20
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
NOTHING = Raw(b"null")
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class Operation(Struct, frozen=True, gc=False):
    """One thing that a client wants; every attempt at it sends the same."""

    number: int
    client: str
    kind: str
    # The reservation's id, the event's id, or the SKU.
    key: str
    # There are millions: what was sent stays as it was sent until somebody looks.
    sent: Raw = field(name="body", default=NOTHING)

    @property
    def body(self) -> Any:
        return _decode(self.sent)


class Request(Operation, frozen=True, gc=False):
    """An operation, and how to ask for it."""

    method: str = field(default="GET")
    path: str = field(default="")


class Attempt(Struct, gc=False):
    """One request and what came of it: ok, fail, info, or nothing yet. Places are lines of the history."""

    operation: Operation
    service: str
    invoked_at: int
    invoked_seconds: float
    completed_at: int | None = None
    completed_seconds: float = 0.0
    verdict: str = "info"
    status: int = 0
    # As it came, for the same reason.
    told: bytes = b"null"
    slug: str = ""
    reason: str = ""
    # Whether a success says that it had been done before.
    replayed: bool = False

    @property
    def answer(self) -> Any:
        return _decode(self.told)


class _Line(Struct, gc=False):
    """One line of the history, of either kind."""

    type: str
    attempt: int
    seconds: float
    service: str = ""
    operation: Operation | None = None
    status: int = 0
    answer: Raw = NOTHING
    slug: str = ""
    reason: str = ""
    replayed: bool = False


_decode_line = msgspec.json.Decoder(_Line).decode


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
        self._file = path.open("wb", BUFFER_BYTES)
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

    def flush(self) -> None:
        """Leave everything so far to the kernel, which outlives us."""
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _write(self, line: dict[str, object]) -> None:
        line["seconds"] = round(time.monotonic() - self._started, 4)
        self._file.write(_encode(line) + b"\n")
        self.lines += 1


def read_history(path: Path) -> list[Attempt]:
    """Read every attempt, in the order in which they were begun."""
    attempts: list[Attempt] = []
    operations: dict[int, Operation] = {}
    intern = sys.intern
    with path.open("rb", BUFFER_BYTES) as file:
        for place, text in enumerate(file):
            line = _decode_line(text)
            if line.operation is not None:
                operation = _kept(operations, line.operation)
                attempt = Attempt(operation, intern(line.service), place, line.seconds)
                attempts.append(attempt)
                assert line.attempt == len(attempts), "attempts are numbered as they begin"
                continue
            attempt = attempts[line.attempt - 1]
            attempt.completed_at, attempt.completed_seconds = place, line.seconds
            attempt.verdict, attempt.status = intern(line.type), line.status
            # A copy: what is kept must not keep the line that it came in.
            attempt.told, attempt.slug = bytes(line.answer), intern(line.slug)
            attempt.reason, attempt.replayed = intern(line.reason), line.replayed
    return attempts


def _kept(operations: dict[int, Operation], read: Operation) -> Operation:
    known = operations.get(read.number)
    if known is None:
        known = operations[read.number] = Operation(
            read.number,
            sys.intern(read.client),
            sys.intern(read.kind),
            read.key,
            read.sent.copy(),
        )
    return known
