"""Tests that a merchandiser can read: one row is one command and what is expected of it.

    location LON PAR             sku MUG CUP            channel web LON PAR
    safety MUG LON 2             receive MUG LON 5      adjust MUG LON -2     count MUG LON 5 as of 10m ago
    ship MUG LON 2 for r1        return MUG LON 1       transfer MUG LON PAR 3
    status MUG LON 2 sellable damaged                   … event e1, … ago, … ahead: any movement may name them
    reserve r1 web MUG:2 CUP:1@PAR  [ttl 60s] [partial] [replaces r0] [request b]
    confirm r1 [order O1]        release r1 [if held]   extend r1 60s         order o1 web MUG:5
    wait 60s                     stock MUG LON | on_hand 5 reserved 2         available web MUG | 3
    reservation r1 | held MUG:2@LON

What is expected stands behind the bar: the outcome, then what the reservation has, then what it lacked as
`short MUG 3 of 5`. A row without a bar must succeed.
"""

import re
from collections.abc import Sequence

import msgspec
from redis.asyncio import Redis

from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Extend,
    Move,
    MovedLine,
    Movement,
    Order,
    ReadConfiguration,
    ReadReservation,
    ReadStock,
    Release,
    Reserve,
    Wanted,
)
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.model import Channel, Pool, Reservation, Stock, available_to_sell
from allocation.outcomes import Outcome
from allocation.ports import Decision, Identity

UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
KINDS = {
    "receive": Movement.RECEIPT,
    "adjust": Movement.ADJUSTMENT,
    "count": Movement.COUNT,
    "ship": Movement.SHIPMENT,
    "return": Movement.RETURN,
    "transfer": Movement.TRANSFER,
    "status": Movement.STATUS,
}
REFUSALS_FROM = Outcome.INSUFFICIENT_STOCK
EPOCH = 1
_decode_stock = msgspec.msgpack.Decoder(list[Stock | None]).decode
_decode_configuration = msgspec.msgpack.Decoder(list[tuple[str, msgspec.Raw]]).decode
_decode_channel = msgspec.msgpack.Decoder(Channel).decode


class Shop:
    """A gate of its own, and a clock that stands still until a row says `wait`."""

    def __init__(self, gate: RedisGate, redis: Redis, identity: Identity, now_ms: int) -> None:
        self._gate, self._redis, self._identity = gate, redis, identity
        self.now_ms = now_ms
        self._events = 0

    @classmethod
    async def open(cls, gate: RedisGate, redis: Redis) -> "Shop":
        """Give a shop without stock whose clock is ahead of the server's."""
        identity = await gate.prepare()
        await gate.load_step("begin", EPOCH)
        await gate.load_step("open", EPOCH, 0, "", 0)
        seconds, _ = await redis.time()
        return cls(gate, redis, identity, (int(seconds) + 3600) * 1000)

    async def decide(self, *commands: Command) -> list[Decision]:
        """Decide commands in one batch."""
        await self._redis.hset(shard_keys(0)[0], "last_ms", self.now_ms)
        return (await self._gate.decide(EPOCH, self._identity, commands, 0)).decisions

    async def follow(self, table: str) -> None:
        """Do what each row says, and fail at the first that comes out otherwise."""
        for number, row in enumerate(table.strip().splitlines(), 1):
            asked, _, expected = (part.strip() for part in row.partition("|"))
            if not asked:
                continue
            actual = await self._row(asked.split(), expected)
            assert _matches(expected, actual), f"row {number}: {asked}\n  {actual}, not {expected}"

    async def pool(self, sku: str, location: str) -> Pool:
        """Read the stock of one SKU at one location."""
        pools = {pool.location: pool for pool in (await self._stock(sku)).pools}
        return pools.get(location, Pool(location, 0, 0, 0, 0, 0, 0, ()))

    async def available(self, channel: str, sku: str) -> int:
        """Say what a channel may promise."""
        (decision,) = await self.decide(ReadConfiguration())
        found = dict(_decode_configuration(decision.extra))
        return available_to_sell(
            _decode_channel(found[f"channel:{channel}"]), await self._stock(sku)
        )

    async def _stock(self, sku: str) -> Stock:
        (decision,) = await self.decide(ReadStock((sku,)))
        return _decode_stock(decision.extra)[0] or Stock(0, ())

    async def _row(self, words: Sequence[str], expected: str) -> str:
        verb, *rest = words
        if verb == "wait":
            self.now_ms += _milliseconds(rest[0])
            return ""
        if verb == "stock":
            pool = await self.pool(*rest)
            return " ".join(f"{name} {getattr(pool, name)}" for name in expected.split()[::2])
        if verb == "available":
            return str(await self.available(*rest))
        if verb in {"location", "sku"}:
            create = ConfigureLocation if verb == "location" else ConfigureSku
            made = [create(name, "" if verb == "location" else ()) for name in rest]  # type: ignore[arg-type]
            return _told((await self.decide(*made))[-1])
        return _told((await self.decide(self._command(verb, rest)))[0])

    def _command(self, verb: str, rest: Sequence[str]) -> Command:  # noqa: PLR0911 - one row of a table each.
        if verb in KINDS:
            return self._movement(KINDS[verb], rest)
        options = " ".join(rest)
        match verb:
            case "channel":
                return ConfigureChannel(rest[0], "", tuple(rest[1:]))
            case "safety":
                return ConfigureSku(rest[0], (rest[1], int(rest[2])))
            case "reserve":
                return Reserve(
                    rest[0],
                    _option(options, "request"),
                    rest[1],
                    _milliseconds(_option(options, "ttl") or "15m"),
                    "partial" in rest,
                    _option(options, "replaces"),
                    _wanted(rest),
                )
            case "order":
                request = _option(options, "request")
                return Order(rest[0], request, rest[1], rest[0].upper(), _wanted(rest))
            case "confirm":
                return Confirm(rest[0], _option(options, "order"))
            case "release":
                return Release(rest[0], hold_only="held" in rest)
            case "extend":
                return Extend(rest[0], _milliseconds(rest[1]))
            case "reservation":
                return ReadReservation(rest[0])
            case _:
                raise AssertionError(f"Bug: the table has no verb {verb}")

    def _movement(self, kind: Movement, rest: Sequence[str]) -> Move:
        options = " ".join(rest)
        self._events += 1
        age, lead = re.search(r"(\w+) ago", options), re.search(r"(\w+) ahead", options)
        age_ms = _milliseconds(age[1]) if age else -_milliseconds(lead[1]) if lead else None
        sku, location, *more = rest
        source = to = ""
        if kind is Movement.TRANSFER:
            to, quantity = more[0], more[1]
        elif kind is Movement.STATUS:
            quantity, source, to = more[0], *(word.replace("sellable", "") for word in more[1:3])
        else:
            quantity, to = more[0], _option(options, "as")
        return Move(
            _option(options, "event") or f"event-{self._events}",
            _option(options, "request"),
            int(kind),
            0 if age_ms is None else self.now_ms - age_ms,
            _option(options, "for"),
            (MovedLine(sku, location, int(quantity), source, to if to != "of" else ""),),
        )


def _wanted(words: Sequence[str]) -> tuple[Wanted, ...]:
    parts = [re.fullmatch(r"(\w+):(\d+)(?:@(\w+))?", word) for word in words]
    return tuple(Wanted(part[1], int(part[2]), part[3] or "") for part in parts if part)


def _milliseconds(text: str) -> int:
    count, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text).groups()  # type: ignore[union-attr]
    return int(count) * UNIT_MS[unit]


def _option(text: str, name: str) -> str:
    found = re.search(rf"\b{name} (\S+)", text)
    return found[1] if found else ""


def _told(decision: Decision) -> str:
    words = [decision.outcome.name.lower().replace("_", " ")]
    return " ".join([*words, *_record(decision.record)])


def _record(record: Reservation | None) -> list[str]:
    if record is None:
        return []
    return [
        f"({record.state.name.lower()})",
        *(f"{line.sku}:{line.quantity}@{line.location}" for line in record.lines),
        *(
            f"short {short.sku} {short.available} of {short.requested} {short.limited_by}"
            for short in record.shortages
        ),
    ]


def _matches(expected: str, actual: str) -> bool:
    """Compare what the row names: a prefix of whole words, with the state in brackets left out or not."""
    if not expected:
        names = {outcome.name.lower().replace("_", " "): outcome for outcome in Outcome}
        told = re.split(r" \(| short", actual)[0]
        return told == "" or names[told] < REFUSALS_FROM
    bare = re.sub(r" \(\w+\)", "", actual)
    return any(f"{told} ".startswith(f"{expected} ") for told in (actual, bare))
