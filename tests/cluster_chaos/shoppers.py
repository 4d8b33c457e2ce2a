"""Clients: each draws what it wants from its own chance, and asks until the answer is definite, or goes away."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from chaos.calling import Caller
from chaos.clients import PAUSE_SECONDS, Customer
from chaos.history import NOT_NOW, NOTHING, Recorder, Request
from chaos.market import Wish
from cluster_chaos.shop import CHANNEL, LONG_SECONDS, REPLACES_SHARE, SHORT_SECONDS, Shop
from msgspec import Raw

CLIENTS = 24
# An operation of which nothing was done is given up this often, so that it must have no effect for ever.
GIVE_UP = 0.3
# And one of which nobody knows: then the service alone has to bring it to an end.
GO_AWAY = 0.15
# So many short holds are confirmed after they have expired.
LATE_SHARE = 0.7
WISHES = {
    "reserve": 40,
    "confirm": 12,
    "release": 12,
    "extend": 6,
    "order": 5,
    "move": 12,
    "read": 5,
    "availability": 4,
    "stock": 2,
}
DUPLICATES, OTHER_BODIES, OWN_SHARE = 0.10, 0.05, 0.6


class Shopper(Customer):
    """One client, who does one thing after the other."""

    def __init__(
        self, name: str, seed: int, shop: Shop, recorder: Recorder, callers: dict[str, Caller]
    ) -> None:
        self.name, self._shop = name, shop
        self.unresolved: Request | None = None
        self._recorder, self._callers = recorder, callers
        self._luck = Random(f"{seed}/{name}")  # noqa: S311 - chance, no secret
        self._mine = 0
        self._carts: deque[tuple[str, Any]] = deque(maxlen=6)
        # Short holds that were granted, and when they will have expired.
        self._short: deque[tuple[str, float]] = deque()

    async def trade_until(self, is_over: Callable[[], bool]) -> None:
        """Do things until somebody says that it is over, and finish the last one."""
        while not is_over():
            await self.carry_out(self._wish())

    async def carry_out(self, wish: Wish) -> Any:
        """Ask until the answer is definite; give what was answered, None where it was refused or given up."""
        kind, key, method, path, body = wish
        self._recorder.operations += 1
        sent = NOTHING if body is None else Raw(msgspec.json.encode(body))
        operation = Request(self._recorder.operations, self.name, kind, key, sent, method, path)
        self.unresolved = operation
        is_unsure, answer = False, None
        self._recorder.on_operation(operation.number)
        while True:
            verdict, slug, answer = await self._attempt(operation)
            is_unsure = is_unsure or verdict == "info"
            if verdict == "ok" or (verdict == "fail" and slug not in NOT_NOW):
                break
            if self._luck.random() < (GO_AWAY if is_unsure else GIVE_UP) and method != "PUT":
                break
            await asyncio.sleep(self._luck.uniform(*PAUSE_SECONDS))
        self.unresolved = None
        if verdict != "ok":
            return None
        if kind in {"reserve", "confirm", "order"}:
            self._shop.note(answer)
        if kind == "reserve" and body["ttl_seconds"] in SHORT_SECONDS:
            self._short.append((key, time.monotonic() + body["ttl_seconds"]))
        return answer

    # What a client wants next.

    def _wish(self) -> Wish:
        luck = self._luck
        if self._short and self._short[0][1] < time.monotonic():
            late, _ = self._short.popleft()
            if luck.random() < LATE_SHARE:
                return self._go_on("confirm", late)
        kind = luck.choices(list(WISHES), list(WISHES.values()))[0]
        known = self._some_reservation()
        if kind == "move":
            event = self._shop.next_movement(luck)
            return "move", event["event_id"], "POST", "/v1/movements", event
        if kind == "order":
            return self._order()
        if kind in {"stock", "availability"}:
            return self._look(kind)
        if kind == "reserve" or known is None:
            return self._reserve()
        return self._go_on(kind, known)

    def _look(self, kind: str) -> Wish:
        first, *others = [self._shop.some_sku(self._luck) for _ in range(4)]
        if kind == "stock":
            return kind, first, "GET", f"/v1/stock/{first}", None
        wanted = "&".join(f"sku={sku}" for sku in (first, *others))
        return kind, first, "GET", f"/v1/availability?channel={CHANNEL}&{wanted}", None

    def _some_reservation(self) -> str | None:
        if self._carts and self._luck.random() < OWN_SHARE:
            return self._luck.choice(self._carts)[0]
        return self._shop.some_reservation(self._luck)

    def _go_on(self, kind: str, key: str) -> Wish:
        path, body = f"/v1/reservations/{key}", None
        if kind == "read":
            return "read", key, "GET", path, None
        if kind == "confirm":
            body = {"order_id": f"order-{key}"}
        if kind == "extend":
            body = {"ttl_seconds": self._luck.choice((*SHORT_SECONDS, *LONG_SECONDS))}
        return kind, key, "POST", f"{path}/{kind}", body

    def _reserve(self) -> Wish:
        chance = self._luck.random()
        if self._carts and chance < DUPLICATES + OTHER_BODIES:
            key, body = self._luck.choice(self._carts)
            if chance >= DUPLICATES:
                body = body | {"lines": self._shop.some_lines(self._luck)}
            return "reserve", key, "POST", "/v1/reservations", body
        self._mine += 1
        key, body = f"{self.name}-{self._mine}", self._shop.some_cart(self._luck)
        if self._carts and self._luck.random() < REPLACES_SHARE:
            body["replaces"] = self._luck.choice(self._carts)[0]
        self._carts.append((key, body))
        self._shop.note_asked(key)
        return "reserve", key, "POST", "/v1/reservations", body

    def _order(self) -> Wish:
        self._mine += 1
        name = f"{self.name}-sale-{self._mine}"
        lines = self._shop.some_lines(self._luck)
        body = {"order_id": name, "channel": CHANNEL, "lines": lines}
        return "order", f"order:{CHANNEL}:{name}", "POST", "/v1/orders", body
