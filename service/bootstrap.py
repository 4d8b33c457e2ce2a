"""The only place where clients and adapters are built and joined."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import resources
from pathlib import Path

import asyncpg
from litestar import Litestar
from msgspec import Struct
from pogo_core.util import migrate

from allocation.gate.redis_gate import RedisGate
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.pipeline import Pipeline
from service.api.availability import Availability
from service.api.channels import ChannelReads
from service.api.reservations import Reservations
from service.api.webhooks import Webhooks
from service.app import create_app
from service.deltas.projection import Projection
from service.deltas.rescan import Rescan
from service.deltas.store import DeltaStore
from service.endless import start_endless
from service.engine import open_engine
from service.feed import Feed
from service.figures import Figures
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
from service.workers.loop import Loop
from service.workers.outages import Outages
from service.workers.pruning import IDLE_SECONDS, InboxPruning, Pruning
from service.workers.pushing import Pushing
from service.workers.server_look import SERVER_LOOK_SECONDS, ServerLook


class Service(Struct, frozen=True):
    """Everything that one process is made of."""

    app: Litestar
    pipeline: Pipeline
    ledger: PostgresLedger
    gate: RedisGate
    figures: Figures
    feed: Feed
    keys: KeyStore
    pool: asyncpg.Pool
    projection: Projection


async def migrate_database(database_url: str) -> None:
    """Bring the database to this version's tables."""
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SELECT pg_advisory_lock(7260)")
        for package in ("allocation.ledger", "service"):
            with resources.as_file(resources.files(package) / "migrations") as folder:
                await migrate.apply(connection, Path(folder), schema_name="public")
    finally:
        await connection.close()


class _Core(Struct, frozen=True):
    """What decides and remembers, and what follows it in memory."""

    pipeline: Pipeline
    gate: RedisGate
    ledger: PostgresLedger
    feed: Feed
    figures: Figures
    pool: asyncpg.Pool


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
        yield Service(
            app,
            core.pipeline,
            core.ledger,
            core.gate,
            core.figures,
            core.feed,
            ends.keys,
            core.pool,
            ends.projection,
        )


async def _start_core(
    stack: AsyncExitStack, settings: Settings, redis_url: str, database_url: str
) -> _Core:
    feed = Feed()
    engine = await stack.enter_async_context(
        open_engine(settings, redis_url, database_url, feed.note_durable)
    )
    pipeline, ledger = engine.pipeline, engine.ledger
    figures = Figures(pipeline)
    await ledger.create()
    await ledger.check_durability()
    await pipeline.start()
    feed.begin(ledger, pipeline.durable_sequence)
    following = start_endless(feed.run(), "feed", pipeline.broken)
    stack.push_async_callback(_end, following)
    stack.push_async_callback(pipeline.stop)
    feed.follow(figures.note_entry)
    await figures.load()
    return _Core(pipeline, engine.gate, ledger, feed, figures, engine.pool)


async def _start_ends(
    stack: AsyncExitStack,
    settings: Settings,
    core: _Core,
    database_url: str,
    development_key: str | None,
) -> _Ends:
    pool, pipeline = core.pool, core.pipeline
    ring, keys, sources, inbox = KeyRing(development_key), KeyStore(pool), SourceRing(), Inbox(pool)
    credentials = Credentials(database_url, (keys, ring), (SourceStore(pool), sources))
    await credentials.run_once()
    deltas, storefronts = DeltaStore(pool), StorefrontStore(pool)
    rescan = Rescan(pipeline, core.gate, deltas)
    projection = Projection(
        core.figures, core.feed, core.ledger, deltas, rescan, broken=pipeline.broken
    )
    pushing = Pushing(storefronts, projection, core.figures, _connector(settings))
    inbox_pruning = InboxPruning(inbox, settings.event_retention_ms)
    outages = Outages()
    loops = {
        "credentials": Loop(
            "credentials", credentials.run_once, idle_seconds=LOOK_SECONDS, outages=outages
        ),
        "inbound": Loop("inbound", Inbound(inbox, sources, pipeline).run_once, outages=outages),
        "pushing": Loop("pushing", pushing.run_once, outages=outages),
        "pruning": Loop(
            "pruning", Pruning(deltas).run_once, idle_seconds=IDLE_SECONDS, outages=outages
        ),
        "server look": Loop(
            "server look",
            ServerLook(pipeline, core.ledger).run_once,
            idle_seconds=SERVER_LOOK_SECONDS,
            retry_seconds_max=SERVER_LOOK_SECONDS,
            outages=outages,
        ),
        "inbox pruning": Loop(
            "inbox pruning", inbox_pruning.run_once, idle_seconds=IDLE_SECONDS, outages=outages
        ),
    }
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
        *Reservations(core.pipeline, ends.ring, settings.key_retention_ms).handlers(),
        *Availability(core.figures, ends.ring).handlers(),
        *Webhooks(ends.sources, ends.inbox, inbound.wake).handlers(),
    ]
    dependencies: dict[str, object] = {
        "pipeline": core.pipeline,
        "figures": core.figures,
        "telemetry": Telemetry(core.pipeline, core.gate, core.feed),
        "pool": core.pool,
        "inbox": ends.inbox,
        "inbound": inbound,
        "channel_reads": ChannelReads(ends.projection, core.pipeline),
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
