"""What the clients saw: every operation, every attempt at it, and what each came to."""

from dataclasses import dataclass, field

from allocation.commands import Command
from allocation.ports import Decision

OK, FAIL, INFO = "ok", "fail", "info"


@dataclass
class Attempt:
    """One request for an operation. `fail` promises that nothing was done, `info` promises nothing."""

    process: str
    invoked_at: float
    verdict: str = ""
    reason: str = ""
    ended_at: float = 0.0


@dataclass
class Operation:
    """One command of one client under one key, and all requests for it."""

    number: int
    client: str
    command: Command
    attempts: list[Attempt] = field(default_factory=list)
    decision: Decision | None = None
    # The ledger's end when the answer was given.
    durable_at_answer: int = 0

    @property
    def is_definite(self) -> bool:
        """Whether the client knows what became of it."""
        return self.decision is not None or all(
            attempt.verdict == FAIL for attempt in self.attempts
        )

    @property
    def invoked_at(self) -> float:
        """When the first request was made."""
        return self.attempts[0].invoked_at

    @property
    def answered_at(self) -> float:
        """When the answer was given."""
        return self.attempts[-1].ended_at
