"""What there is to sell on each shard, and what shoppers and warehouse want of it."""

import time
from collections import deque
from datetime import UTC, datetime
from itertools import count
from random import Random
from typing import Any

from chaos.market import Wish
from cluster_chaos.plan import SHARDS

from allocation.shards.routing import shard_of

LOCATIONS = ("NORTH", "SOUTH")
CHANNEL = "web"
HOT_A_SHARD, HOT_UNITS, COLD_UNITS = 3, (1, 20), 1_000
CART_SHARE, SAME_SKU_SHARE, PINNED_SHARE = 0.65, 0.2, 0.1
PARTIAL_SHARE, REPLACES_SHARE = 0.15, 0.15
SHORT_SECONDS, LONG_SECONDS, SHORT_SHARE = (1, 2, 3), (8, 12), 0.35
REMEMBERED = 120
# So many orders wait for the warehouse before it sends some off.
UNSENT_MAX = 10
MOVED_LINES = (1, 4)


class Shop:
    """The catalogue, and the newest reservations and orders, shared by all clients."""

    def __init__(self, seed: int) -> None:
        self._luck = Random(f"{seed}/shop")  # noqa: S311 - chance, no secret
        self.hot = [sku for shard in range(SHARDS) for sku in _skus_of(shard, "HOT", HOT_A_SHARD)]
        # One for each shard, that never runs out.
        self.cold = [sku for shard in range(SHARDS) for sku in _skus_of(shard, "COLD", 1)]
        self._asked: deque[str] = deque(maxlen=REMEMBERED)
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
        for sku in (*self.hot, *self.cold):
            wishes.append(("configure", sku, "PUT", f"/v1/skus/{sku}", {}))
            units = self._luck.randint(*HOT_UNITS) if sku in self.hot else COLD_UNITS
            north = self._luck.randint(0, units)
            lines = [line(sku, north, "NORTH"), line(sku, units - north, "SOUTH")]
            event = self._movement("receipt", [each for each in lines if each["quantity"]])
            wishes.append(("move", event["event_id"], "POST", "/v1/movements", event))
        return wishes

    def note_asked(self, key: str) -> None:
        self._asked.append(key)

    def note(self, answer: dict[str, Any]) -> None:
        """Learn of an order from the answer that told of it."""
        if answer["state"] == "committed":
            self._orders.append(answer)

    def some_sku(self, luck: Random) -> str:
        return luck.choice(self.hot)

    def some_reservation(self, luck: Random) -> str | None:
        """Pick one that was asked for lately, by whomever; the newest are wanted most."""
        if not self._asked:
            return None
        return self._asked[int(len(self._asked) * max(luck.random(), luck.random()))]

    def some_cart(self, luck: Random) -> dict[str, Any]:
        """Draw what a shopper wants to hold: most carts lie on several shards."""
        lines = self.some_lines(luck)
        if luck.random() < PINNED_SHARE:
            lines[0]["location"] = luck.choice(LOCATIONS)
        seconds = SHORT_SECONDS if luck.random() < SHORT_SHARE else LONG_SECONDS
        cart = {"channel": CHANNEL, "lines": lines, "ttl_seconds": luck.choice(seconds)}
        if luck.random() < PARTIAL_SHARE:
            cart["partial"] = True
        return cart

    def some_lines(self, luck: Random) -> list[dict[str, Any]]:
        many = luck.randint(2, 4) if luck.random() < CART_SHARE else 1
        lines = [line(sku, luck.randint(1, 3)) for sku in luck.sample(self.hot, many)]
        if many > 1 and luck.random() < SAME_SKU_SHARE:
            lines.append(line(lines[0]["sku"], 1))
        return lines

    def next_movement(self, luck: Random) -> dict[str, Any]:
        """Deliver one thing that the warehouse sent: out of order, and some of it again."""
        if len(self._outbox) < 4:
            for _ in range(4):
                for event in self._draw_movements(luck):
                    self._outbox += [event] * luck.choice((1, 2))
            luck.shuffle(self._outbox)
        return self._outbox.pop()

    def _draw_movements(self, luck: Random) -> list[dict[str, Any]]:
        moment = _moment(time.time() - luck.uniform(0, 3))
        if len(self._orders) > UNSENT_MAX:
            return self._send_off(moment)
        skus = luck.sample(self.hot, luck.randint(*MOVED_LINES))
        place = luck.choice(LOCATIONS)
        kind = luck.choices(("receipt", "adjustment", "count"), (3, 2, 1))[0]
        if kind == "count":
            lines = [line(sku, luck.randint(0, HOT_UNITS[1]), place) for sku in skus]
            return [self._movement(kind, lines, as_of=moment)]
        changes = (1, 2) if kind == "receipt" else (-2, -1, 1)
        lines = [line(sku, luck.choice(changes), place) for sku in skus]
        return [self._movement(kind, lines, occurred_at=moment)]

    def _send_off(self, moment: str) -> list[dict[str, Any]]:
        """Let an order leave, and as much come in, so that the shop lasts."""
        order = self._orders.popleft()
        lines, name = order["lines"], order["reservation_id"]
        return [
            self._movement("shipment", lines, reservation_id=name, occurred_at=moment),
            self._movement("receipt", lines, occurred_at=moment),
        ]

    def _movement(self, kind: str, lines: list[dict[str, Any]], **fields: str) -> dict[str, Any]:
        self._events += 1
        event = f"event-{self._events}"
        return {"source": "wms", "event_id": event, "kind": kind, "lines": lines, **fields}


def line(sku: str, quantity: int, location: str | None = None) -> dict[str, Any]:
    """Write one line of a cart or a movement."""
    written: dict[str, Any] = {"sku": sku, "quantity": quantity}
    return written if location is None else written | {"location": location}


def _skus_of(shard: int, name: str, many: int) -> list[str]:
    found: list[str] = []
    for number in count():
        if len(found) == many:
            return found
        if shard_of(f"{name}-{number}", SHARDS) == shard:
            found.append(f"{name}-{number}")
    raise AssertionError("Bug: counting ended")


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
