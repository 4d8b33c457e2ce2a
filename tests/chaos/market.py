"""What there is to sell, and what clients know of each other's reservations."""

import time
from collections import deque
from datetime import UTC, datetime
from random import Random
from typing import Any

from msgspec import Struct

LOCATIONS = ("NORTH", "SOUTH")
CHANNEL = "web"
HOT_SKUS, COLD_SKUS = 8, 40
HOT_UNITS, COLD_UNITS = (1, 20), 1_000
HOT_SHARE, CART_SHARE, SAME_SKU_SHARE, PINNED_SHARE = 0.7, 0.2, 0.3, 0.1
# One SKU after the other is looked at more closely, each for its whole life: the samples of C7.
SAMPLED = "SAMPLED-"
SAMPLED_SHARE, SAMPLED_UNITS = 0.08, 12
OPERATIONS_A_SAMPLE = 25_000
SHORT_SECONDS, LONG_SECONDS = (1, 2, 3), (8, 15, 30)
SHORT_SHARE = 0.3
REMEMBERED = 300
GRANTED_SHARE, LET_GO_SHARE = 0.85, 0.7
# So many orders wait for the warehouse before it sends some off, and as many units come in again.
UNSENT_MAX, SENT_AGAIN_SHARE = 20, 0.1
# Wish kind, key, method, path and body.
Wish = tuple[str, str, str, str, Any]


class Reserved(Struct, frozen=True):
    """A reservation that somebody asked for."""

    key: str
    body: dict[str, Any]


class Market:
    """The catalogue, and the newest reservations and orders, shared by all clients."""

    def __init__(self, seed: int, operations: int) -> None:
        self._luck = Random(f"{seed}/market")  # noqa: S311 - chance, no secret
        self.hot = [f"HOT-{number}" for number in range(HOT_SKUS)]
        self.cold = [f"COLD-{number}" for number in range(COLD_SKUS)]
        samples = max(1, operations // OPERATIONS_A_SAMPLE)
        self.sampled = [f"{SAMPLED}{number}" for number in range(samples)]
        self._operations_a_sample = max(1, operations // samples)
        # How many operations have begun.
        self.operations = 0
        self._asked: deque[Reserved] = deque(maxlen=REMEMBERED)
        self._granted: list[Reserved] = []
        self._orders: deque[dict[str, Any]] = deque()
        # What the warehouse has sent, some of it twice, and nobody has delivered yet.
        self._outbox: list[dict[str, Any]] = []
        self._events = 0

    def opening(self) -> list[Wish]:
        """Give the operations that open the shop, in their order."""
        wishes: list[Wish] = [
            ("configure", code, "PUT", f"/v1/locations/{code}", {}) for code in LOCATIONS
        ]
        channel = {"locations": list(LOCATIONS)}
        wishes.append(("configure", CHANNEL, "PUT", f"/v1/channels/{CHANNEL}", channel))
        for sku in (*self.hot, *self.cold, *self.sampled):
            wishes.append(("configure", sku, "PUT", f"/v1/skus/{sku}", {}))
            units = self._luck.randint(*HOT_UNITS) if sku in self.hot else COLD_UNITS
            units = SAMPLED_UNITS if sku in self.sampled else units
            north = self._luck.randint(0, units)
            lines = [_line(sku, north, "NORTH"), _line(sku, units - north, "SOUTH")]
            event = self._movement("receipt", [line for line in lines if line["quantity"]])
            wishes.append(("move", event["event_id"], "POST", "/v1/movements", event))
        return wishes

    def note_asked(self, key: str, body: dict[str, Any]) -> None:
        self._asked.append(Reserved(key, body))

    def note(self, body: dict[str, Any] | None, answer: dict[str, Any]) -> None:
        """Learn of a hold or an order from the answer that told of it."""
        if answer["state"] == "committed":
            self._orders.append(answer)
        elif body is not None and "lines" in body:
            if len(self._granted) == REMEMBERED:
                self._granted.pop(0)
            self._granted.append(Reserved(answer["reservation_id"], body))

    def some_sku(self, luck: Random) -> str:
        """Pick one that anything may be done to."""
        return luck.choice(self.hot if luck.random() < HOT_SHARE else self.cold)

    def wanted_sku(self, luck: Random) -> str:
        """Pick one that customers want, which may be the sample of the moment."""
        if luck.random() >= SAMPLED_SHARE:
            return self.some_sku(luck)
        past = self.operations // self._operations_a_sample
        return self.sampled[min(past, len(self.sampled) - 1)]

    def some_reservation(self, luck: Random) -> Reserved | None:
        """Pick one that was asked for lately, by whomever: more often one that is known to be held."""
        known = self._granted if luck.random() < GRANTED_SHARE else self._asked
        return luck.choice(known) if known else None

    def let_go(self, chosen: Reserved, luck: Random) -> None:
        """Learn that somebody ends a hold: most of the time nobody asks for it again."""
        if luck.random() < LET_GO_SHARE and chosen in self._granted:
            self._granted.remove(chosen)

    def some_cart(self, luck: Random) -> dict[str, Any]:
        """Draw what a shopper wants to hold."""
        count = luck.randint(2, 4) if luck.random() < CART_SHARE else 1
        lines = [_line(self.wanted_sku(luck), luck.randint(1, 3)) for _ in range(count)]
        if count > 1 and luck.random() < SAME_SKU_SHARE:
            lines[-1] = _line(lines[0]["sku"], luck.randint(1, 3))
        if luck.random() < PINNED_SHARE:
            lines[0]["location"] = luck.choice(LOCATIONS)
        seconds = SHORT_SECONDS if luck.random() < SHORT_SHARE else LONG_SECONDS
        return {"channel": CHANNEL, "lines": lines, "ttl_seconds": luck.choice(seconds)}

    def next_movement(self, luck: Random) -> dict[str, Any]:
        """Deliver one thing that the warehouse sent: out of order, and some of it again."""
        if len(self._outbox) < 4:
            for _ in range(6):
                for event in self._draw_movements(luck):
                    self._outbox += [event] * luck.choice((1, 1, 1, 2))
            luck.shuffle(self._outbox)
        return self._outbox.pop()

    def _draw_movements(self, luck: Random) -> list[dict[str, Any]]:
        moment = _moment(time.time() - luck.uniform(0, 3))
        if len(self._orders) > UNSENT_MAX:
            return self._send_off(luck, moment)
        kind = luck.choices(("receipt", "adjustment", "count"), (4, 2, 2))[0]
        sku, place = self.wanted_sku(luck), luck.choice(LOCATIONS)
        if kind == "adjustment":
            change = luck.choice((-2, -1, 1, 2))
            return [self._movement(kind, [_line(sku, change, place)], occurred_at=moment)]
        # What a count leaves depends on when it was taken: a sample has none.
        if kind == "count" and sku not in self.sampled:
            units = luck.randint(0, HOT_UNITS[1]) if sku in self.hot else COLD_UNITS
            return [self._movement(kind, [_line(sku, units, place)], as_of=moment)]
        lines = [_line(sku, luck.randint(1, 3), place)]
        return [self._movement("receipt", lines, occurred_at=moment)]

    def _send_off(self, luck: Random, moment: str) -> list[dict[str, Any]]:
        """Let an order leave, and as much come in, so that the shop lasts."""
        order = self._orders.popleft()
        if luck.random() < SENT_AGAIN_SHARE:
            self._orders.append(order)
        lines = order["lines"]
        return [
            self._movement(
                "shipment", lines, reservation_id=order["reservation_id"], occurred_at=moment
            ),
            self._movement("receipt", lines, occurred_at=moment),
        ]

    def _movement(self, kind: str, lines: list[dict[str, Any]], **fields: str) -> dict[str, Any]:
        self._events += 1
        event = f"event-{self._events}"
        return {"source": "wms", "event_id": event, "kind": kind, "lines": lines, **fields}


def _line(sku: str, quantity: int, location: str | None = None) -> dict[str, Any]:
    line: dict[str, Any] = {"sku": sku, "quantity": quantity}
    return line if location is None else line | {"location": location}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
