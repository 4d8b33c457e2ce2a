"""What a command came to: one enumeration, shared with the gate's Lua."""

from enum import IntEnum


class Outcome(IntEnum):
    """The verdict on one command. Refusals are values of this type, never exceptions."""

    # Something was done and journaled.
    HELD = 1
    COMMITTED = 2
    RELEASED = 3
    EXTENDED = 4
    APPLIED = 5
    CREATED = 6
    REPLACED = 7
    # Nothing new was done, and that is success.
    REPLAYED = 20
    DUPLICATE = 21
    UNCHANGED = 22
    FOUND = 23
    # Refused; nothing was done.
    INSUFFICIENT_STOCK = 40
    HOLD_LOST = 41
    ALREADY_COMMITTED = 42
    ALREADY_SHIPPED = 43
    IDEMPOTENCY_MISMATCH = 44
    UNKNOWN_SKU = 45
    UNKNOWN_CHANNEL = 46
    UNKNOWN_LOCATION = 47
    UNKNOWN_RESERVATION = 48
    COUNT_TOO_OLD = 49
    # Not decided: ask again.
    DEFERRED = 60
    # The command itself broke the decision; its neighbours in the batch are unharmed.
    FAULT = 70


class Kind(IntEnum):
    """What a journal entry records."""

    HELD = 1
    REFUSED = 2
    COMMITTED = 3
    RELEASED = 4
    EXTENDED = 5
    EXPIRED = 6
    ORDERED = 7
    MOVED = 8
    CONFIGURED = 9
    FORGOTTEN = 10


class State(IntEnum):
    """Where a reservation is in its life."""

    HELD = 1
    COMMITTED = 2
    RELEASED = 3
    EXPIRED = 4
    REFUSED = 5
    SHIPPED = 6
    RETURNED = 7


class Status(IntEnum):
    """What the gate says of a whole call, before any command in it is looked at."""

    DECIDED = 0
    FENCED = 1
    NO_STATE = 2


def may_change_on_retry(outcome: Outcome) -> bool:
    """Say whether the same command under a new id may fare better later."""
    return outcome in {
        Outcome.INSUFFICIENT_STOCK,
        Outcome.UNKNOWN_SKU,
        Outcome.UNKNOWN_CHANNEL,
        Outcome.UNKNOWN_LOCATION,
        Outcome.DEFERRED,
    }
