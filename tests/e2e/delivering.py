"""A warehouse that delivers movements, and what became of them."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from in_process import LOCATION, SKU, Served

WITHIN_SECONDS = 5.0


def moved(kind: str, quantity: int, sku: str = SKU, **fields: object) -> bytes:
    lines = [{"sku": sku, "location": LOCATION, "quantity": quantity}]
    return json.dumps({"kind": kind, "lines": lines} | fields).encode()


def receipt(quantity: int, sku: str = SKU, **fields: object) -> bytes:
    return moved("receipt", quantity, sku, **fields)


async def deliver(
    running: Served, body: bytes, headers: dict[str, str], source: str = "wms"
) -> httpx.Response:
    request = running.client.build_request(
        "POST", f"/v1/webhooks/{source}", content=body, headers=headers
    )
    # The signature is the authority: no key is sent.
    del request.headers["authorization"]
    return await running.client.send(request)


async def becomes(read: Callable[[], Awaitable[object]], expected: object) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while (found := await read()) != expected:
        assert time.monotonic() < deadline, f"{found} is not {expected}"
        await asyncio.sleep(0.005)


async def states(running: Served) -> list[str]:
    rows = await running.service.engine.pool.fetch("SELECT state FROM inbound_event ORDER BY id")
    return [row["state"] for row in rows]


async def dead_letters(running: Served, query: str = "") -> dict[str, Any]:
    answer = await running.client.get(f"/v1/dead-letters{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()
