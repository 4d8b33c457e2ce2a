"""Logical clients: each draws what it wants from its own chance, and asks until the answer is definite."""

import asyncio
from random import Random
from typing import Any

import msgspec
from chaos.calling import Answer, Caller
from chaos.history import NOT_NOW, NOTHING, Recorder, Request, judge
from chaos.market import CHANNEL, LONG_SECONDS, SHORT_SECONDS, Market, Reserved, Wish
from msgspec import Raw

CLIENTS = 96
# Shorter than the service's own deadline: a client that waits on a sleeping process asks another one.
PATIENCE_SECONDS = (0.7, 4.0)
PAUSE_SECONDS = (0.05, 0.6)
# An operation of which nothing was done is given up this often, so that it must have no effect for ever.
GIVE_UP = 0.3
WISHES = {
    "reserve": 42,
    "confirm": 9,
    "release": 20,
    "extend": 4,
    "move": 15,
    "read": 4,
    "availability": 4,
    "stock": 2,
}
DUPLICATES, OTHER_BODIES, UNNAMED_SHARE = 0.10, 0.03, 0.2


class Customer:
    """One client, who does one thing after the other."""

    def __init__(
        self, name: str, seed: int, market: Market, recorder: Recorder, callers: dict[str, Caller]
    ) -> None:
        self.name = name
        self.unresolved: Request | None = None
        self._market, self._recorder, self._callers = market, recorder, callers
        self._luck = Random(f"{seed}/{name}")  # noqa: S311 - chance, no secret
        self._mine = 0

    async def trade(self, operations: int) -> None:
        """Do things until the run has begun this many operations, and finish the last one."""
        while self._recorder.operations < operations:
            await self.carry_out(self._wish())

    async def carry_out(self, wish: Wish) -> Any:
        """Ask until the answer is definite; give what was answered, None where it was refused or given up."""
        kind, key, method, path, body = wish
        self._recorder.operations += 1
        self._market.operations = self._recorder.operations
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
            if not is_unsure and self._luck.random() < GIVE_UP:
                break
            await asyncio.sleep(self._luck.uniform(*PAUSE_SECONDS))
        self.unresolved = None
        if verdict != "ok":
            return None
        if kind in {"reserve", "confirm"}:
            self._market.note(body, answer)
        return answer

    async def _attempt(self, operation: Request) -> tuple[str, str, Any]:
        service = self._luck.choice(list(self._callers))
        patience = self._luck.uniform(*PATIENCE_SECONDS)
        attempt = self._recorder.begin(operation, service)
        try:
            answer = await self._ask(self._callers[service], operation, patience)
        except (OSError, TimeoutError) as fault:
            self._recorder.end(attempt, "info", reason=type(fault).__name__)
            return "info", "", None
        found = answer.json
        verdict, slug = judge(answer.status, found)
        self._recorder.end(
            attempt,
            verdict,
            status=answer.status,
            answer=Raw(answer.body),
            slug=slug,
            replayed=answer.says(b"idempotent-replayed: true") or _is_duplicate(found),
        )
        return verdict, slug, found

    async def _ask(self, caller: Caller, operation: Request, patience_seconds: float) -> Answer:
        if operation.method == "GET":
            return await caller.get(operation.path, patience_seconds)
        body = b"" if operation.sent == NOTHING else bytes(operation.sent)
        more = [("Idempotency-Key", operation.key)] if operation.kind == "reserve" else []
        request = caller.request(operation.method, operation.path, body, *more)
        return await caller.send(request, patience_seconds)

    # What a client wants next.

    def _wish(self) -> Wish:
        kind = self._luck.choices(list(WISHES), list(WISHES.values()))[0]
        known = self._market.some_reservation(self._luck)
        if kind == "move":
            event = self._market.next_movement(self._luck)
            return "move", event["event_id"], "POST", "/v1/movements", event
        if kind in {"availability", "stock"}:
            return self._look(kind)
        if kind == "reserve" or known is None:
            return self._reserve(known)
        if kind in {"confirm", "release"}:
            self._market.let_go(known, self._luck)
        return self._go_on(kind, known.key)

    def _go_on(self, kind: str, key: str) -> Wish:
        path, body = f"/v1/reservations/{key}", None
        if kind == "read":
            return "read", key, "GET", path, None
        # An order is not always named at once: it may get its number later.
        if kind == "confirm" and self._luck.random() >= UNNAMED_SHARE:
            body = {"order_id": f"order-{key}"}
        if kind == "extend":
            body = {"ttl_seconds": self._luck.choice((*SHORT_SECONDS, *LONG_SECONDS))}
        return kind, key, "POST", f"{path}/{kind}", body

    def _look(self, kind: str) -> Wish:
        sku = self._market.wanted_sku(self._luck)
        if kind == "stock":
            return "stock", sku, "GET", f"/v1/stock/{sku}", None
        other = self._market.wanted_sku(self._luck)
        path = f"/v1/availability?channel={CHANNEL}&sku={sku}&sku={other}"
        return "availability", sku, "GET", path, None

    def _reserve(self, known: Reserved | None) -> Wish:
        chance = self._luck.random()
        if known is not None and chance < DUPLICATES + OTHER_BODIES:
            key, body = known.key, known.body
            if chance >= DUPLICATES:
                first, *rest = body["lines"]
                body = body | {"lines": [first | {"quantity": first["quantity"] + 1}, *rest]}
        else:
            self._mine += 1
            key, body = f"{self.name}-{self._mine}", self._market.some_cart(self._luck)
            self._market.note_asked(key, body)
        return "reserve", key, "POST", "/v1/reservations", body


def _is_duplicate(answer: Any) -> bool:
    return isinstance(answer, dict) and answer.get("duplicate") is True
