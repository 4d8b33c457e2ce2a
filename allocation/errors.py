"""Faults of the engine. Refusals are not here: they are values of `Outcome`.

EngineError
├── NothingDone               the command was not decided; the same command may be sent again
│   ├── LedgerUnavailable
│   ├── GateUnverified
│   ├── GateFull
│   └── TooManyWaiting
├── OutcomeUnknown            decided perhaps; repeat the same command until the answer is definite
├── Fenced                    another process has taken the shard over
├── Diverged                  gate and ledger tell different histories
│   └── LedgerRewound         the ledger lacks what it had, and the gate cannot give it back
├── CheckpointDamaged         a checkpoint is not what was written; the ledger has what it had
├── ChainBroken               an entry of the ledger is missing, or not as it was written
├── Closed                    the shard was closed for a reason that only a person can settle
└── Unsuitable                a server is set up in a way that would lose what was promised

StaleProcess is none of them: nothing can be done about it but to start the process anew.
"""


class EngineError(Exception):
    """Something failed that is no refusal."""


class NothingDone(EngineError):
    """The command was not decided, and nothing was changed."""


class LedgerUnavailable(NothingDone):
    """The ledger cannot take entries now."""


class GateUnverified(NothingDone):
    """The gate cannot be reached, or has not been verified since it changed."""


class GateFull(NothingDone):
    """The gate's memory is nearly full; units can be given back, but no more be held."""


class TooManyWaiting(NothingDone):
    """More commands wait than could be decided in time."""


class OutcomeUnknown(EngineError):
    """The command may have been decided, and the answer is not durable yet."""


class Fenced(EngineError):
    """Another process has taken this shard over."""


class Diverged(EngineError):
    """The gate's history does not continue the ledger's."""


class LedgerRewound(Diverged):
    """The gate was told that entries are durable which the ledger does not have.

    They may have been answered. Only an operator can say that the ledger is right all the same.
    """


class CheckpointDamaged(EngineError):
    """A checkpoint is not what was written."""


class ChainBroken(EngineError):
    """An entry of the ledger is missing, or is not what was written."""

    def __init__(self, sequence: int, reason: str) -> None:
        super().__init__(f"Entry {sequence} of the ledger {reason}.")
        self.sequence = sequence


class Closed(EngineError):
    """The shard was closed, with a reason, and stays so until an operator opens it again."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The shard is closed: {reason} Mend what is named, then `ringfence reopen` opens it."
        )


class Unsuitable(EngineError):
    """A server is set up in a way that would lose what was promised."""


class StaleProcess(Exception):
    """What this process has told others is no longer so; only a new process can go on."""
