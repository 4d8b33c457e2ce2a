"""A shop over HTTP for the contract tests: what they sell, and what every answer must look like."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from e2e.contract.http_client import Answer, Client

LOCATIONS = ("NORTH", "SOUTH", "EAST")
# `web` sources from two locations, `store` from one of them and `kiosk` from one of its own.
CHANNELS = {"web": ["NORTH", "SOUTH"], "store": ["SOUTH"], "kiosk": ["EAST"]}
POLL_SECONDS = 0.01
CONVERGE_SECONDS_MAX = 5.0
_numbers = itertools.count(1)


def unique(word: str) -> str:
    """Make up an id that no other test uses."""
    return f"{word}-{next(_numbers)}"


class Shop:
    """Calls the service as an operator and as a storefront do."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def open(self) -> None:
        """Create the locations and channels; what is there already stays."""
        for code in LOCATIONS:
            answer = await self.client.put(f"/v1/locations/{code}", {})
            assert answer.status in {200, 201}, answer
        for code, locations in CHANNELS.items():
            answer = await self.client.put(f"/v1/channels/{code}", {"locations": locations})
            assert answer.status in {200, 201}, answer

    async def new_sku(self, units: Mapping[str, int] | int = 0, word: str = "SKU") -> str:
        """Create a SKU with units on hand; a number puts them all in NORTH."""
        sku = unique(word)
        assert (await self.client.put(f"/v1/skus/{sku}", {})).status == 201
        placed = {"NORTH": units} if isinstance(units, int) else units
        lines = [line(sku, quantity, place) for place, quantity in placed.items() if quantity]
        if lines:
            assert (await self.move("receipt", lines)).status == 200
        return sku

    async def move(self, kind: str, lines: list[dict[str, Any]], **fields: object) -> Answer:
        """Record a movement under an event id of its own, unless one is given."""
        body = {"source": "wms", "event_id": unique("event"), "kind": kind, "lines": lines}
        return await self.client.post("/v1/movements", body | fields)

    async def reserve(
        self, lines: list[dict[str, Any]], *, key: str | None = None, **fields: object
    ) -> Answer:
        """Reserve on `web` under a key of its own, unless others are given."""
        body = {"channel": "web", "lines": lines} | fields
        return await self.client.post("/v1/reservations", body, key or unique("key"))

    async def held(self, lines: list[dict[str, Any]], **fields: Any) -> str:
        """Reserve, which must succeed, and give the id."""
        answer = await self.reserve(lines, **fields)
        assert answer.status == 201, answer
        return answer.json["reservation_id"]

    async def act(self, reservation_id: str, action: str, body: object = None) -> Answer:
        """Confirm, release or extend."""
        return await self.client.post(f"/v1/reservations/{reservation_id}/{action}", body)

    async def state(self, reservation_id: str) -> str:
        return (await self.client.get(f"/v1/reservations/{reservation_id}")).json["state"]

    async def available(self, sku: str, channel: str = "web") -> int:
        answer = await self.client.get(f"/v1/availability?channel={channel}&sku={sku}")
        assert answer.status == 200, answer
        return answer.json["items"][0]["available"]

    async def pools(self, sku: str) -> dict[str, dict[str, Any]]:
        """Give every bucket of a SKU by location, as the gate has it by now."""
        answer = await self.client.get(f"/v1/stock/{sku}")
        assert answer.status == 200, answer
        return {pool["location"]: pool for pool in answer.json["locations"]}

    async def settles(self, sku: str, expected: Mapping[str, Mapping[str, object]]) -> None:
        """Wait until the buckets are as expected; figures may be a moment old."""

        async def found() -> object:
            pools = await self.pools(sku)
            return {
                place: {name: pools.get(place, {}).get(name) for name in buckets}
                for place, buckets in expected.items()
            }

        await becomes(found, expected)


async def becomes(
    read: Callable[[], Awaitable[object]],
    expected: object,
    within_seconds: float = CONVERGE_SECONDS_MAX,
) -> None:
    """Wait until a value is the expected one."""
    deadline = asyncio.get_running_loop().time() + within_seconds
    while (found := await read()) != expected:
        assert asyncio.get_running_loop().time() < deadline, f"{found} is not {expected}"
        await asyncio.sleep(POLL_SECONDS)


def line(
    sku: str, quantity: int = 1, location: str | None = None, **more: object
) -> dict[str, Any]:
    """Write one line of a request."""
    place = {} if location is None else {"location": location}
    return {"sku": sku, "quantity": quantity} | place | more


def expect_problem(
    answer: Answer, status: int, slug: str, *, done: str = "nothing", **members: object
) -> dict[str, Any]:
    """Check a problem, field by field and header by header, and give it."""
    assert answer.status == status, answer
    assert answer.header("content-type") == "application/problem+json"
    assert answer.header("content-length") == str(len(answer.body))
    problem: dict[str, Any] = answer.json
    assert problem.keys() == {"type", "title", "status", "detail", "done"} | members.keys()
    assert problem["type"].rpartition("/")[2] == slug, problem
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["done"] == done
    assert {name: problem[name] for name in members} == members
    retry_after = answer.header("retry-after")
    assert (retry_after is not None) == (status in {429, 503}), answer
    assert retry_after is None or int(retry_after) >= 1
    assert (answer.header("www-authenticate") == "Bearer") == (status == 401)
    assert answer.header("idempotent-replayed") is None
    return problem


def expect_lack(answer: Answer, sku: str, requested: int, available: int) -> None:
    """Check the refusal of a cart in which one SKU lacked units."""
    lines = expect_problem(answer, 409, "insufficient-stock", lines=answer.json["lines"])["lines"]
    assert lines[0].pop("limited_by") in {"on_hand", "reserved"}
    assert lines == [{"sku": sku, "requested": requested, "available": available}]
