"""Packs folded state into parts, as the gate's load steps take them and checkpoints keep them.

A part is the head of a MessagePack array, and then one text after the other: field and record, score and member,
or members alone. A record is packed as a text, which it is not, since Lua's reader knows no other kind of bytes.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

import msgspec
from msgspec import Raw

from allocation.folding import (
    DEADLINES_KEY,
    MOVES_KEY,
    RECORD_KEYS,
    FoldedState,
    prefix_of,
)
from allocation.ports import Part

# A step should block the gate for milliseconds only.
PART_VALUES = 4_000
_FIX_TEXT_MAX = 31

_decode_values = msgspec.msgpack.Decoder(list[Raw]).decode
_decode_text = msgspec.msgpack.Decoder(str).decode


class _Heads(dict[int, bytes]):
    """The head of a packed text, by the length of the text."""

    def __missing__(self, length: int) -> bytes:
        if length <= _FIX_TEXT_MAX:
            head = bytes([0xA0 | length])
        elif length < 1 << 8:
            head = b"\xd9" + length.to_bytes(1, "big")
        elif length < 1 << 16:
            head = b"\xda" + length.to_bytes(2, "big")
        else:
            head = b"\xdb" + length.to_bytes(4, "big")
        self[length] = head
        return head


_head_of = _Heads().__getitem__


def packed(values: Iterable[bytes]) -> Iterator[bytes]:
    """Give values in bodies of so many as one step takes; none where there are none."""
    rest = iter(values)
    while chunk := list(islice(rest, PART_VALUES)):
        heads = map(_head_of, map(len, chunk))
        joined = b"".join(chain.from_iterable(zip(heads, chunk, strict=True)))
        yield b"\xdd" + len(chunk).to_bytes(4, "big") + joined


def state_parts(state: FoldedState) -> Iterator[Part]:
    """Give the parts that put a whole state into an empty gate."""
    for key in RECORD_KEYS:
        fields = ((field.encode(), record) for field, record in state.records[key].items())
        yield from parts(key, chain.from_iterable(fields))
    deadlines = ((b"%d" % at_ms, member.encode()) for member, at_ms in state.deadlines())
    yield from parts(DEADLINES_KEY, chain.from_iterable(deadlines))
    members = chain.from_iterable(state.moves.values())
    yield from parts(MOVES_KEY, chain.from_iterable((b"0", member.encode()) for member in members))


def parts(key: int, values: Iterable[bytes]) -> Iterator[Part]:
    """Give values as parts for one key."""
    return (Part(key, body) for body in packed(values))


def take_part(state: FoldedState, part: Part) -> None:
    """Take over into a state what one of its parts has. Raises msgspec.DecodeError."""
    values = _decode_values(part.body)
    names, contents = islice(values, 0, None, 2), islice(values, 1, None, 2)
    if part.key in RECORD_KEYS:
        records = state.records[part.key]
        records.update(zip(map(_decode_text, names), map(_bytes_of, contents), strict=True))
    elif part.key == MOVES_KEY:
        for member in map(_decode_text, contents):
            state.moves.setdefault(prefix_of(member), []).append(member)


def _bytes_of(text: Raw) -> bytes:
    with_head = bytes(text)
    return with_head[_HEAD_BYTES.get(with_head[0], 1) :]


_HEAD_BYTES = {0xD9: 2, 0xDA: 3, 0xDB: 5}
