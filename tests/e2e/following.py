"""Follows a channel's deltas as a storefront does: again from its cursor whenever the stream ends."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import httpx
from e2e.supervised import START_SECONDS_MAX, Load

CHANNEL = "/v1/channels/web"


class Follower:
    """Has the newest figure of the SKU that is sold; fails where a delta is missed or comes twice."""

    def __init__(self, load: Load) -> None:
        self.connections = 0
        self._sku = load.sku
        self._cursor = self._available = 0
        self._client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{load.port}",
            headers={"authorization": f"Bearer {load.api_key}"},
            timeout=START_SECONDS_MAX,
        )

    async def run(self) -> None:
        async with self._client:
            snapshot = (await self._client.get(f"{CHANNEL}/snapshot")).raise_for_status().json()
            self._cursor = snapshot["cursor"]
            while True:
                await self._follow()

    async def _follow(self) -> None:
        path = f"{CHANNEL}/deltas?cursor={self._cursor}"
        async with self._client.stream("GET", path) as answer:
            assert answer.status_code == 200, await answer.aread()
            self.connections += 1
            async for line in answer.aiter_lines():
                if line.startswith("id: "):
                    assert int(line.removeprefix("id: ")) == self._cursor + 1
                    self._cursor += 1
                elif line.startswith("data: "):
                    figure = json.loads(line.removeprefix("data: "))
                    if figure["sku"] == self._sku:
                        self._available = figure["available"]

    async def reaches(self, available: Callable[[], int]) -> None:
        """Wait until it has been told of this figure."""
        async with asyncio.timeout(START_SECONDS_MAX):
            while self._available != available():  # noqa: ASYNC110 - the figure moves meanwhile
                await asyncio.sleep(0.02)


@asynccontextmanager
async def following(load: Load) -> AsyncGenerator[Follower]:
    """Follow until the test is through."""
    follower = Follower(load)
    task = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        task.cancel()
        for ended in await asyncio.gather(task, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), ended
