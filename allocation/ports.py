"""What the engine needs of the world: a gate that decides and a ledger that remembers."""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from allocation.commands import Command
from allocation.model import Reservation
from allocation.outcomes import Outcome, Status


class Decision(Struct, array_like=True, frozen=True):
    """What one command came to. `version` is the ledger sequence that its record was last changed at."""

    outcome: Outcome
    version: int
    record: Reservation | None
    extra: msgspec.Raw


class BatchHead(Struct, array_like=True, frozen=True):
    """What the gate says of a whole call; entries run from `first_sequence` to `last_sequence`.

    Where `swept_all` is false, overdue holds remain for the next call to expire.
    """

    status: Status
    now_ms: int
    first_sequence: int
    hash_before: str
    last_sequence: int
    hash_after: str
    swept_all: bool
    # What the server's own clock shows; `now_ms` is the time that the gate went by.
    clock_ms: int = 0


class Batch(Struct, frozen=True):
    """The decisions of one call and the journal entries they made, in order."""

    head: BatchHead
    decisions: list[Decision]
    entries: list[bytes]


class Identity(Struct, frozen=True):
    """The gate's server as it was verified: which process, and which history it continues."""

    run_id: str
    replication_id: str


class Head(Struct, frozen=True):
    """Where a shard's ledger ends, and which process and server it belongs to."""

    epoch: int
    last_sequence: int
    last_hash: str
    run_id: str = ""
    replication_id: str = ""
    # The ledger's own server, as it was when the shard was taken over.
    taken_on: str = ""


class Page(Struct, frozen=True, gc=False):
    """Some entries of the ledger without a gap: how many, the sequence of the last, all bodies in a row."""

    entries: int
    last_sequence: int
    bodies: bytes


class Part(Struct, frozen=True, gc=False):
    """A piece of a folded state as the gate's load steps take it; `key` is the number of the gate's key."""

    key: int
    body: bytes


class Checkpoint(Struct, frozen=True):
    """A checkpoint without its parts: the entry that it was made at, and the digest of each part."""

    sequence: int
    last_hash: str
    last_ms: int
    digests: tuple[str, ...]
    taken_at_ms: int


class Moment(Struct, frozen=True):
    """Where the gate stood when it was read, and its clock."""

    epoch: int
    sequence: int
    last_hash: str
    now_ms: int


class Scanned(Struct, frozen=True, gc=False):
    """Some fields of one key at one moment, the record or score of each, and where to go on; empty at the end."""

    moment: Moment
    following: bytes
    fields: list[bytes]
    values: Sequence[bytes | float | None]


class KeyUnreadableError(Exception):
    """A key of the gate is not of the kind that it should be."""


@runtime_checkable
class Decider(Protocol):
    """Whoever answers commands: the pipeline of the one shard, or many behind one face."""

    def submit(self, command: Command) -> Awaitable[Decision]:
        """Ask for a decision; the answer comes when it is durable. Raises NothingDone and OutcomeUnknown."""
        ...


class Gate(Protocol):
    """Decides commands for one shard. Raises GateUnverified for every fault of the server."""

    async def prepare(self) -> Identity:
        """Make the server ready and say who it is."""
        ...

    async def decide(
        self,
        epoch: int,
        identity: Identity,
        commands: Sequence[Command | msgspec.Raw],
        durable_sequence: int,
    ) -> Batch:
        """Decide commands in order; raises Fenced where nothing was decided."""
        ...

    async def memory_share(self) -> float:
        """Say how full the memory is that the gate may use."""
        ...

    async def read_journal(self, after_sequence: int) -> list[tuple[int, bytes]]:
        """Read what the journal still has after a sequence, oldest first."""
        ...

    async def present_state(self) -> tuple[int, int, str] | None:
        """Give epoch, last sequence and hash; None where there is no state."""
        ...

    async def newest_epoch(self) -> int:
        """Give the highest epoch that has opened this gate or begun to load it; 0 for none."""
        ...

    async def load_step(self, step: str, epoch: int, *arguments: str | bytes | int) -> bool:
        """Do one step of a take-over; False where a newer one, or another state, is there."""
        ...


class Ledger(Protocol):
    """Remembers the entries of one shard. Raises LedgerUnavailable for every fault of the server."""

    async def head(self) -> Head:
        """Read where the ledger ends."""
        ...

    async def append(self, head: Head, bodies: Sequence[bytes], last_hash: str) -> Head:
        """Append entries behind `head`; raises Fenced where it is not the head, Diverged for a bad chain."""
        ...

    async def read(self, after_sequence: int, limit: int) -> list[tuple[int, bytes]]:
        """Read entries in order: sequence and body."""
        ...

    def pages(self, after_sequence: int, through_sequence: int) -> AsyncGenerator[Page]:
        """Read many entries in order, the next page while one is being looked at; raises Diverged for a gap."""
        ...

    async def hash_at(self, sequence: int) -> str | None:
        """Give the hash of one entry."""
        ...

    async def present_server(self) -> str:
        """Say which server the ledger is on; another one may not have all entries."""
        ...

    async def take_over(self, run_id: str, replication_id: str, above_epoch: int) -> Head:
        """Raise the epoch, above one that the gate knows too: from then on no older process can append."""
        ...

    def only_taker(self) -> AbstractAsyncContextManager[None]:
        """Keep every other process from taking over meanwhile."""
        ...

    async def checkpoints(self, through_sequence: int) -> list[Checkpoint]:
        """Name the complete checkpoints that the ledger agrees with, the newest first."""
        ...

    def checkpoint_parts(self, checkpoint: Checkpoint) -> AsyncGenerator[Part]:
        """Read the parts in order; raises CheckpointDamaged where one is not what it was."""
        ...

    async def keep_checkpoint(
        self, sequence: int, last_hash: str, parts: AsyncIterable[Part]
    ) -> None:
        """Write a checkpoint, whole or not at all, and drop those that it makes superfluous."""
        ...
