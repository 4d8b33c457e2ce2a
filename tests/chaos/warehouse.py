"""A warehouse that delivers signed movements late, twice and out of order, until each is taken."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any

import asyncpg
import msgspec
from chaos.calling import Caller
from chaos.history import Recorder, Request, judge
from chaos.market import LOCATIONS, Market
from e2e.contract.http_client import request_bytes
from msgspec import Raw
from signing import signed_headers

# Movements that clients tell of over the API have another source.
SOURCE = "hook"
# A SKU that nobody has configured: what names it can only become a dead letter.
UNKNOWN_SKU = "NOWHERE"
PATIENCE_SECONDS = 4.0
PAUSE_SECONDS = (0.02, 0.2)
LATE_SECONDS = 5.0
EVENTS_PER_ROUND = 6
UNKNOWN_SHARE, OTHER_BODY_SHARE, BOTH_AT_ONCE_SHARE = 0.1, 0.1, 0.3
LOOK_SECONDS = 0.1
WAREHOUSES = 4
_WAITING = "SELECT count(*) FROM inbound_event WHERE state = 'received'"

# Id and body.
Delivery = tuple[str, dict[str, Any]]


class Warehouse:
    """One of the senders. What was answered with anything but 2xx is sent again, to whichever service."""

    def __init__(  # noqa: PLR0913 - what it draws from, and what it sends by
        self,
        name: str,
        seed: int,
        market: Market,
        recorder: Recorder,
        callers: Mapping[str, Caller],
        *,
        secret: str,
    ) -> None:
        self._name = name
        self._luck = Random(f"{seed}/{name}")  # noqa: S311 - chance, no secret
        self._market, self._recorder, self._callers = market, recorder, callers
        self._secret = secret
        self._events = 0

    async def deliver(self, operations: int) -> None:
        """Send until the run has begun this many operations, and what was begun to its end."""
        while self._recorder.operations < operations:
            for first, *others in self._next_round():
                await asyncio.gather(*(self._until_taken(sent) for sent in (first, *others)))
                await asyncio.sleep(self._luck.uniform(*PAUSE_SECONDS))

    def _next_round(self) -> list[list[Delivery]]:
        """Draw what happened lately, shuffled; what stands together is sent at once."""
        round_: list[list[Delivery]] = []
        for _ in range(EVENTS_PER_ROUND):
            self._events += 1
            delivery = f"{self._name}-{self._events}", self._movement()
            again = [delivery] * self._luck.choice((0, 0, 1, 2))
            if self._luck.random() < OTHER_BODY_SHARE:
                again.append((delivery[0], self._movement()))
            if self._luck.random() < BOTH_AT_ONCE_SHARE:
                round_.append([delivery, *again])
            else:
                round_ += [[sent] for sent in (delivery, *again)]
        self._luck.shuffle(round_)
        return round_

    def _movement(self) -> dict[str, Any]:
        kind = self._luck.choices(("receipt", "adjustment", "shipment", "count"), (6, 2, 2, 1))[0]
        sku = self._market.some_sku(self._luck)
        if self._luck.random() < UNKNOWN_SHARE:
            sku = UNKNOWN_SKU
        units = self._luck.randint(1, 4) * (-1 if kind == "adjustment" else 1)
        moment = datetime.now(UTC).timestamp() - self._luck.uniform(0, LATE_SECONDS)
        told = datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")
        line = {"sku": sku, "location": self._luck.choice(LOCATIONS), "quantity": units}
        return {
            "kind": kind,
            "lines": [line],
            "as_of" if kind == "count" else "occurred_at": told,
        }

    async def _until_taken(self, delivery: Delivery) -> None:
        delivery_id, body = delivery
        self._recorder.operations += 1
        number, path = self._recorder.operations, f"/v1/webhooks/{SOURCE}"
        sent = Raw(msgspec.json.encode(body))
        operation = Request(number, self._name, "deliver", delivery_id, sent, "POST", path)
        self._recorder.on_operation(number)
        while await self._attempt(operation) != "ok":  # noqa: ASYNC110 - a service tells nobody
            await asyncio.sleep(self._luck.uniform(*PAUSE_SECONDS))

    async def _attempt(self, operation: Request) -> str:
        service = self._luck.choice(list(self._callers))
        body = bytes(operation.sent)
        headers = signed_headers(self._secret, operation.key, body)
        attempt = self._recorder.begin(operation, service)
        try:
            request = request_bytes("POST", operation.path, list(headers.items()), body)
            answer = await self._callers[service].send(request, PATIENCE_SECONDS)
        except (OSError, TimeoutError) as fault:
            self._recorder.end(attempt, "info", reason=type(fault).__name__)
            return "info"
        found = answer.json
        verdict, slug = judge(answer.status, found)
        told = {"status": answer.status, "answer": Raw(answer.body), "slug": slug}
        again = isinstance(found, dict) and found.get("duplicate") is True
        self._recorder.end(attempt, verdict, **told, replayed=again)
        return verdict


async def await_empty_inbox(database_url: str, seconds_max: float) -> float | None:
    """Wait until no delivery waits any more; give how long that took, None where it was in vain."""
    connection = await asyncpg.connect(database_url)
    began = asyncio.get_running_loop().time()
    try:
        async with asyncio.timeout(seconds_max):
            while await connection.fetchval(_WAITING):  # noqa: ASYNC110 - a server tells nobody
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        return None
    finally:
        await connection.close()
    return asyncio.get_running_loop().time() - began


async def read_inbox(database_url: str) -> list[dict[str, Any]]:
    """Give what has become of every delivery that was stored."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(
            "SELECT webhook_id, convert_from(body, 'UTF8') AS body, state, reason, is_other_body"
            " FROM inbound_event ORDER BY id"
        )
    finally:
        await connection.close()
    return [dict(row) for row in rows]
