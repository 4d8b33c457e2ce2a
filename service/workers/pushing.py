"""Pushes to each storefront the newest figure of every SKU that it has not heard."""

import asyncio
import logging
from collections.abc import Callable

from msgspec import Struct

from service.deltas.projection import Projection
from service.figures import Figures
from service.storefronts.port import Delivered, Gone, PushedFigure, Storefront
from service.storefronts.store import Claim, Registered, StorefrontStore

_LOGGER = logging.getLogger(__name__)

CONCURRENCY = 8
STOP_SECONDS = 2.0

Connect = Callable[[Registered, int], Storefront]


class _Served(Struct):
    """A storefront that this process pushes to."""

    registered: Registered
    adapter: Storefront
    pushes: set[asyncio.Task[None]]

    def ended(self, push: asyncio.Task[None]) -> None:
        """Let a push go; where it failed, its claim runs out and the figure is pushed again."""
        self.pushes.discard(push)
        if not push.cancelled() and (fault := push.exception()) is not None:
            _LOGGER.warning("A push to %s met a fault.", self.registered.name, exc_info=fault)


class Pushing:
    """The duty of the worker. Several processes may do it at once: each figure is claimed by one of them."""

    def __init__(
        self, store: StorefrontStore, projection: Projection, figures: Figures, connect: Connect
    ) -> None:
        self._store, self._projection = store, projection
        self._figures, self._connect = figures, connect
        self._served: dict[str, _Served] = {}
        self.on_settled: Callable[[], None] = lambda: None

    async def run_once(self) -> int:
        """Take over what was published, begin pushes where there is room, and say how much there was."""
        active = {registered.name: registered for registered in await self._store.active()}
        for name in [*self._served]:
            if (
                name not in active
                or active[name].revision != self._served[name].registered.revision
            ):
                await self._leave(name)
        done = 0
        for registered in active.values():
            if registered.channel in self._figures.channels:
                done += await self._serve(registered)
        return done

    async def settle(self) -> None:
        """Wait until every push that has begun has ended."""
        while pushes := [push for served in self._served.values() for push in served.pushes]:
            await asyncio.gather(*pushes, return_exceptions=True)

    async def stop(self) -> None:
        """Leave every storefront, after what is on its way if that takes no time."""
        pushes = [push for served in self._served.values() for push in served.pushes]
        if pushes:
            await asyncio.wait(pushes, timeout=STOP_SECONDS)
        for name in [*self._served]:
            await self._leave(name)

    async def _serve(self, registered: Registered) -> int:
        served = self._served.get(registered.name)
        if served is None:
            self._projection.open(registered.channel)
            served = _Served(registered, self._connect(registered, CONCURRENCY), set())
            self._served[registered.name] = served
        taken = await self._store.take_over(registered)
        room = CONCURRENCY - len(served.pushes)
        if registered.paused or room == 0:
            return taken
        claims = await self._store.claim(registered.name, room)
        for claim in claims:
            push = asyncio.create_task(self._push(served, claim))
            served.pushes.add(push)
            push.add_done_callback(served.ended)
        return taken + len(claims)

    async def _push(self, served: _Served, claim: Claim) -> None:
        registered = served.registered
        result = await served.adapter.push(
            PushedFigure(
                registered.channel, claim.sku, claim.available, claim.version, claim.changed_at_ms
            )
        )
        if isinstance(result, Delivered):
            await self._store.delivered(registered.name, claim)
        elif isinstance(result, Gone):
            await self._store.failed(registered.name, claim, result.reason, None)
            await self._store.end(registered, result.reason)
        else:
            await self._store.failed(registered.name, claim, result.reason, result.after_seconds)
        self.on_settled()

    async def _leave(self, name: str) -> None:
        served = self._served.pop(name)
        self._projection.close(served.registered.channel)
        for push in served.pushes:
            push.cancel()
        await asyncio.gather(*served.pushes, return_exceptions=True)
        await served.adapter.close()
