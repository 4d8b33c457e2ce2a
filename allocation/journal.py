"""The journal entry: what one decision changed, and the chain of hashes that links it to all before it."""

import hashlib

import msgspec
from msgspec import Struct

from allocation.model import Channel, Location, Reservation, Stock
from allocation.outcomes import Kind

GENESIS_HASH = ""


class EntryHead(Struct, array_like=True, frozen=True, gc=False):
    """The first fields of an entry, all that the ledger's columns need."""

    kind: int
    at_ms: int
    subject: str


class EventRecord(Struct, array_like=True, frozen=True, gc=False):
    """That a movement was applied: its fingerprint, where in the ledger, and until when this is kept."""

    fingerprint: str
    version: int
    deadline_ms: int


class Entry(Struct, array_like=True, frozen=True):
    """One decision: the records as they were after it, `None` where one was forgotten.

    `moves` adds members to the set of recent movements, or forgets a range: [prefix, first member kept].
    """

    kind: Kind
    at_ms: int
    subject: str
    reservations: list[tuple[str, Reservation | None]]
    stock: list[tuple[str, Stock]]
    events: list[tuple[str, EventRecord | None]]
    configuration: list[tuple[str, msgspec.Raw]]
    moves: list[tuple[str, str]]
    detail: msgspec.Raw


class StockChange(Struct, array_like=True, frozen=True):
    """The part of an entry that changes figures; cheap to read for those who only publish."""

    kind: int
    at_ms: int
    subject: str
    reservations: msgspec.Raw
    stock: list[tuple[str, Stock]]
    events: msgspec.Raw
    configuration: list[tuple[str, msgspec.Raw]]


decode_entry = msgspec.msgpack.Decoder(Entry).decode
decode_head = msgspec.msgpack.Decoder(EntryHead).decode
decode_stock_change = msgspec.msgpack.Decoder(StockChange).decode
decode_location = msgspec.msgpack.Decoder(Location).decode
decode_channel = msgspec.msgpack.Decoder(Channel).decode


def chain(previous_hash: str, body: bytes) -> str:
    """Give the hash of an entry, as the gate computes it."""
    return hashlib.sha1(previous_hash.encode() + body, usedforsecurity=False).hexdigest()
