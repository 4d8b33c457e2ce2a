"""Finds out whether gate and ledger tell one history, and makes them do so before anything is sold."""

from collections.abc import Callable
from functools import reduce

from msgspec import Struct

from allocation.errors import LedgerRewound
from allocation.journal import chain
from allocation.ports import Gate, Head, Identity, Ledger
from allocation.rebuild import rebuild, replay_tail

JOIN_ATTEMPTS = 20


class Verified(Struct, frozen=True):
    """A gate that may decide: its identity, and the head of the ledger that it continues."""

    identity: Identity
    head: Head
    gate_sequence: int
    gate_hash: str
    took_over: bool


async def verify(gate: Gate, ledger: Ledger) -> Verified:
    """Join the gate where it is as the ledger left it, else take the shard over.

    Raises GateUnverified or LedgerUnavailable where a server cannot be reached, Fenced where another process
    was faster, Diverged where the ledger lacks entries (LedgerRewound where it has lost its end), and
    Unsuitable where a server's settings would lose what was promised.
    """
    identity = await gate.prepare()
    joined = await _join(gate, ledger, identity)
    if joined is not None:
        return joined
    async with ledger.only_taker():
        joined = await _join(gate, ledger, identity)
        if joined is not None:
            return joined
        await _require_whole_ledger(gate, ledger)
        return await _take_over(gate, ledger, identity)


async def take_over_and_rebuild(
    gate: Gate,
    ledger: Ledger,
    on_read: Callable[[int, int], None],
    *,
    accept_lost_entries: bool = True,
) -> Verified:
    """Take the shard over and make the gate's state anew from the ledger, whatever the gate holds.

    Where the ledger has lost its end, to accept that is for an operator alone: it says that what was answered
    is not so. Otherwise raises as `verify`.
    """
    identity = await gate.prepare()
    async with ledger.only_taker():
        if not accept_lost_entries:
            await _require_whole_ledger(gate, ledger)
        head = await _raise_epoch(gate, ledger, identity)
        head = await _append_what_chains(gate, ledger, head)
        await rebuild(gate, ledger, head, on_read)
    return Verified(identity, head, head.last_sequence, head.last_hash, took_over=True)


async def _join(gate: Gate, ledger: Ledger, identity: Identity) -> Verified | None:
    head = await ledger.head()
    if head.taken_on != await ledger.present_server():
        return None
    for _ in range(JOIN_ATTEMPTS):
        state = await gate.present_state()
        if state is None:
            return None
        epoch, sequence, last_hash = state
        known = (head.epoch, head.run_id, head.replication_id)
        if known != (epoch, identity.run_id, identity.replication_id):
            return None
        if await _entries_between(gate, head, sequence, last_hash) is not None:
            return Verified(identity, head, sequence, last_hash, took_over=False)
        earlier, head = head, await ledger.head()
        if head == earlier:
            return None
        # Another process is at work: it appended, and trimmed the journal, between our looks.
    return None


async def _entries_between(
    gate: Gate, head: Head, last_sequence: int, last_hash: str
) -> list[bytes] | None:
    """Give what the gate has decided after the ledger's end; None where that does not lead to its state."""
    wanted = range(head.last_sequence + 1, last_sequence + 1)
    journal = dict(await gate.read_journal(head.last_sequence)) if wanted else {}
    if last_sequence < head.last_sequence or any(number not in journal for number in wanted):
        return None
    bodies = [journal[number] for number in wanted]
    return bodies if reduce(chain, bodies, head.last_hash) == last_hash else None


async def _require_whole_ledger(gate: Gate, ledger: Ledger) -> None:
    """Raise LedgerRewound where the gate has trimmed, as durable, what the ledger does not have."""
    head = await ledger.head()
    for _ in range(JOIN_ATTEMPTS):
        state = await gate.present_state()
        if state is None or state[1] <= head.last_sequence:
            return
        journal = {sequence for sequence, _ in await gate.read_journal(head.last_sequence)}
        if journal.issuperset(range(head.last_sequence + 1, state[1] + 1)):
            return
        earlier, head = head, await ledger.head()
        if head == earlier:
            raise LedgerRewound(
                f"The gate has entry {state[1]}, the ledger ends at {head.last_sequence}."
            )
        # Another process has appended, and trimmed the journal, between our looks.


async def _raise_epoch(gate: Gate, ledger: Ledger, identity: Identity) -> Head:
    # From this commit on, no process that holds an older epoch can make anything durable.
    newest = await gate.newest_epoch()
    return await ledger.take_over(identity.run_id, identity.replication_id, newest)


async def _take_over(gate: Gate, ledger: Ledger, identity: Identity) -> Verified:
    head = await _raise_epoch(gate, ledger, identity)
    head = await _append_what_chains(gate, ledger, head)
    armed = await gate.load_step("arm", head.epoch, head.last_sequence, head.last_hash)
    if not armed:
        # A process that has noticed nothing yet may have trimmed, between our looks, what it knew as durable.
        await _require_whole_ledger(gate, ledger)
        if not await replay_tail(gate, ledger, head):
            await rebuild(gate, ledger, head)
    return Verified(identity, head, head.last_sequence, head.last_hash, took_over=True)


async def _append_what_chains(gate: Gate, ledger: Ledger, head: Head) -> Head:
    """Append what the gate decided and nobody wrote: it was never answered, but it was decided."""
    state = await gate.present_state()
    if state is None or state[1] <= head.last_sequence:
        return head
    _, last_sequence, last_hash = state
    bodies = await _entries_between(gate, head, last_sequence, last_hash)
    return await ledger.append(head, bodies, last_hash) if bodies else head
