"""The only place where clients and adapters are built and joined."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from litestar import Litestar
from msgspec import Struct

from allocation.group_commit import OnDurable
from service.api.availability import Availability
from service.api.channels import ChannelReads
from service.api.reservations import Reservations
from service.api.webhooks import Webhooks
from service.app import create_app
from service.deltas.projection import Projection
from service.deltas.sources import Source, Sources
from service.deltas.store import DeltaStore
from service.endless import start_endless
from service.engine import Engine, open_engine
from service.feed import Feed
from service.figures import Figures, ShardFigures
from service.keys import KeyRing, KeyStore
from service.settings import Settings
from service.storefronts.port import Storefront
from service.storefronts.registration import Registration
from service.storefronts.store import Registered, StorefrontStore
from service.storefronts.webhook import WebhookStorefront
from service.telemetry import Telemetry
from service.warehouses.inbox import Inbox
from service.warehouses.sources import SourceRing, SourceStore
from service.workers.credentials import LOOK_SECONDS, Credentials
from service.workers.inbound import Inbound
from service.workers.loop import IDLE_SECONDS as DUTY_SECONDS
from service.workers.loop import Duty, Loop, loops_of
from service.workers.pruning import IDLE_SECONDS, InboxPruning, Pruning
from service.workers.pushing import Pushing
from service.workers.server_look import SERVER_LOOK_SECONDS, ServerLook
from service.workers.settling import settling_duties


class Service(Struct, frozen=True):
    """Everything that one process is made of."""

    app: Litestar
    engine: Engine
    sources: Sources
    figures: Figures
    keys: KeyStore
    projection: Projection


class _Core(Struct, frozen=True):
    """What decides and remembers, and what follows it in memory."""

    engine: Engine
    sources: Sources
    figures: Figures


class _Ends(Struct, frozen=True):
    """Both ends of the service, and the workers that serve them."""

    keys: KeyStore
    ring: KeyRing
    sources: SourceRing
    inbox: Inbox
    credentials: Credentials
    projection: Projection
    pushing: Pushing
    registration: Registration
    loops: dict[str, Loop]


@asynccontextmanager
async def running_service(
    settings: Settings, redis_url: str, database_url: str, development_key: str | None
) -> AsyncGenerator[Service]:
    """Build and start everything, and stop it in the opposite order."""
    async with AsyncExitStack() as stack:
        core = await _start_core(stack, settings, redis_url, database_url)
        ends = await _start_ends(stack, settings, core, database_url, development_key)
        app = _app(settings, core, ends)
        yield Service(app, core.engine, core.sources, core.figures, ends.keys, ends.projection)


async def _start_core(
    stack: AsyncExitStack, settings: Settings, redis_url: str, database_url: str
) -> _Core:
    feeds: list[Feed] = []

    def listener(_shard: int) -> OnDurable:
        feeds.append(Feed())
        return feeds[-1].note_durable

    engine = await stack.enter_async_context(
        open_engine(settings, redis_url, database_url, listener)
    )
    await engine.start()
    sources: list[Source] = []
    for shard, feed in zip(engine.shards, feeds, strict=True):
        figures = ShardFigures(shard.pipeline)
        feed.begin(shard.ledger, shard.pipeline.durable_sequence)
        following = start_endless(feed.run(), f"feed {shard.number}", engine.broken)
        stack.push_async_callback(_end, following)
        feed.follow(figures.note_entry)
        sources.append(Source(shard.pipeline, shard.gate, shard.ledger, feed, figures))
    stack.push_async_callback(engine.stop)
    await asyncio.gather(*[source.figures.load() for source in sources])
    return _Core(engine, sources, Figures([source.figures for source in sources]))


async def _start_ends(
    stack: AsyncExitStack,
    settings: Settings,
    core: _Core,
    database_url: str,
    development_key: str | None,
) -> _Ends:
    engine, pool = core.engine, core.engine.pool
    ring, keys, sources, inbox = KeyRing(development_key), KeyStore(pool), SourceRing(), Inbox(pool)
    credentials = Credentials(database_url, (keys, ring), (SourceStore(pool), sources))
    await credentials.run_once()
    deltas, storefronts = DeltaStore(pool, len(core.sources)), StorefrontStore(pool)
    projection = Projection(core.sources, deltas, broken=engine.broken)
    pushing = Pushing(storefronts, projection, core.figures, _connector(settings))
    inbox_pruning = InboxPruning(inbox, settings.event_retention_ms)
    duties: dict[str, tuple[Duty, float]] = {
        "credentials": (credentials.run_once, LOOK_SECONDS),
        "inbound": (Inbound(inbox, sources, engine.decider).run_once, DUTY_SECONDS),
        "pushing": (pushing.run_once, DUTY_SECONDS),
        "pruning": (Pruning(deltas).run_once, IDLE_SECONDS),
        "inbox pruning": (inbox_pruning.run_once, IDLE_SECONDS),
        "server look": (
            ServerLook(engine.pipelines, engine.shards[0].ledger).run_once,
            SERVER_LOOK_SECONDS,
        ),
        **settling_duties(engine, settings),
    }
    loops = loops_of(duties)
    credentials.on_change = loops["credentials"].wake
    projection.on_published = pushing.on_settled = loops["pushing"].wake
    stack.callback(credentials.close)
    stack.push_async_callback(projection.stop)
    stack.push_async_callback(pushing.stop)
    for loop in loops.values():
        loop.start()
        stack.push_async_callback(loop.stop)
    registration = Registration(
        storefronts, loops["pushing"].wake, allow_private=settings.allow_private_storefronts
    )
    return _Ends(keys, ring, sources, inbox, credentials, projection, pushing, registration, loops)


def _app(settings: Settings, core: _Core, ends: _Ends) -> Litestar:
    inbound = ends.loops["inbound"]
    hot_handlers = [
        *Reservations(core.engine.decider, ends.ring, settings.key_retention_ms).handlers(),
        *Availability(core.figures, ends.ring).handlers(),
        *Webhooks(ends.sources, ends.inbox, inbound.wake).handlers(),
    ]
    dependencies: dict[str, object] = {
        "pipeline": core.engine.decider,
        "engine": core.engine,
        "figures": core.figures,
        "telemetry": Telemetry(core.sources),
        "pool": core.engine.pool,
        "inbox": ends.inbox,
        "inbound": inbound,
        "channel_reads": ChannelReads(ends.projection, core.sources),
        "storefronts": ends.registration,
    }
    return create_app(hot_handlers, ends.ring, dependencies)


def _connector(settings: Settings) -> Callable[[Registered, int], Storefront]:
    """Say how a storefront is reached; there is one way until now."""

    def connect(storefront: Registered, concurrency: int) -> Storefront:
        return WebhookStorefront(
            storefront.name,
            storefront.url,
            storefront.secret,
            concurrency,
            allow_private=settings.allow_private_storefronts,
        )

    return connect


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
