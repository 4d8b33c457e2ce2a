"""Folded states kept beside the ledger, so that a rebuild reads the entries behind the newest of them only.

A checkpoint is believed where the ledger has its hash at its sequence, and each part the digest written with it.
Any other is passed over as if it were not there: the ledger has everything that it had.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from msgspec import Struct

from allocation.errors import CheckpointDamaged
from allocation.folding import FoldedState
from allocation.packing import state_parts, take_part
from allocation.ports import Checkpoint, Ledger, Part

# Another number for every other meaning of the parts; a checkpoint of another format is not read.
FORMAT = 1
CONTENTS_KEY = 0


class _Contents(Struct, array_like=True, frozen=True):
    """The first part: what the others are."""

    format: int
    sequence: int
    last_hash: str


_encode = msgspec.msgpack.Encoder().encode


async def write_checkpoint(
    ledger: Ledger, state: FoldedState, sequence: int, last_hash: str
) -> None:
    """Keep the state that the ledger folds to at `sequence`, whole or not at all; the newest two are kept.

    The state must not change meanwhile. Raises Diverged where the ledger has no such hash at `sequence` (at 0 it
    has none), and LedgerUnavailable.
    """
    contents = _Contents(FORMAT, sequence, last_hash)
    await ledger.keep_checkpoint(sequence, last_hash, _parts_of(contents, state))


async def latest_checkpoint(ledger: Ledger, through_sequence: int) -> Checkpoint | None:
    """Give the newest complete checkpoint up to a sequence that the ledger agrees with; None where there is none.

    Its parts are verified only as they are read. Raises LedgerUnavailable.
    """
    found = await ledger.checkpoints(through_sequence)
    return found[0] if found else None


async def read_parts(ledger: Ledger, checkpoint: Checkpoint) -> AsyncGenerator[Part]:
    """Give each part of the state, verified. Raises CheckpointDamaged and LedgerUnavailable."""
    expected = _encode(_Contents(FORMAT, checkpoint.sequence, checkpoint.last_hash))
    if not checkpoint.digests:
        raise CheckpointDamaged
    async with aclosing(ledger.checkpoint_parts(checkpoint)) as parts:
        async for part in parts:
            if part.key != CONTENTS_KEY:
                yield part
            elif part.body != expected:
                raise CheckpointDamaged


async def read_state(ledger: Ledger, checkpoint: Checkpoint) -> FoldedState:
    """Give the state that a checkpoint keeps. Raises CheckpointDamaged and LedgerUnavailable."""
    state = FoldedState()
    state.last_ms = checkpoint.last_ms
    async with aclosing(read_parts(ledger, checkpoint)) as parts:
        async for part in parts:
            take_part(state, part)
    return state


async def _parts_of(contents: _Contents, state: FoldedState) -> AsyncGenerator[Part]:
    yield Part(CONTENTS_KEY, _encode(contents))
    for part in state_parts(state):
        yield part
