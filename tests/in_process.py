"""The whole service inside the test's process, on real servers, without a socket for HTTP."""

import warnings
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

import asyncpg
import httpx
from litestar.exceptions import LitestarDeprecationWarning

from service.bootstrap import Service, running_service
from service.settings import Settings

ADMIN_KEY = "in-process-admin"
LOCATION, CHANNEL, SKU = "LONDON", "web", "TEE"


class Served(NamedTuple):
    """A running service, and a client with a key that may do everything."""

    service: Service
    client: httpx.AsyncClient

    async def on_hand(self, sku: str = SKU) -> int:
        """Read the units at the one location, as the gate has them."""
        answer = await self.client.get(f"/v1/stock/{sku}")
        assert answer.status_code == 200, answer.text
        pools = answer.json()["locations"]
        return pools[0]["on_hand"] if pools else 0


@asynccontextmanager
async def served(redis_url: str, database_url: str) -> AsyncIterator[Served]:
    """Run it, with one location, one channel and one SKU."""
    settings = Settings(demo=False)
    async with AsyncExitStack() as stack:
        with warnings.catch_warnings():
            # Litestar 3 will want dependencies of handlers marked as such.
            warnings.simplefilter("ignore", LitestarDeprecationWarning)
            running = running_service(settings, redis_url, database_url, ADMIN_KEY)
            service = await stack.enter_async_context(running)
        async with client_of(service, ADMIN_KEY) as client:
            for path, body in (
                (f"/v1/locations/{LOCATION}", {}),
                (f"/v1/channels/{CHANNEL}", {"locations": [LOCATION]}),
                (f"/v1/skus/{SKU}", {}),
            ):
                answer = await client.put(path, json=body)
                assert answer.status_code in {200, 201}, answer.text
            yield Served(service, client)


@asynccontextmanager
async def client_of(service: Service, key: str | None) -> AsyncIterator[httpx.AsyncClient]:
    """Give a client that sends one key, or none."""
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(service.app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://ringfence.test", headers=headers
    ) as client:
        yield client


@asynccontextmanager
async def pool_of(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """Reach the database beside the service."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool:
        yield pool
