"""One run: start everything, trade while things go wrong, heal, and write down what there is in the end."""

import asyncio
import shutil
import time
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
from chaos.calling import Caller
from chaos.closing import read_stock, stop_all
from chaos.history import FILE_NAME, Recorder
from cluster_chaos.faults import Faults
from cluster_chaos.plan import SHARDS, Fault, draw_plan
from cluster_chaos.record import FINAL_NAME, ledger_name
from cluster_chaos.shop import CHANNEL, Shop, line
from cluster_chaos.shoppers import CLIENTS, Shopper
from cluster_chaos.world import World
from msgspec import Struct

from allocation.audit import audit
from allocation.shards.layout import lay_out
from service.engine import open_engine
from service.keys import KeyStore
from service.preparation import migrate_database
from service.settings import Settings

OPEN_SECONDS_MAX = 60.0
# After this long nothing more is waited for: what has not come by then is reported as missing.
RESOLVE_SECONDS_MAX = 60.0
# Somebody looks at what was cut off after 10 seconds, and once more where that was cut off as well.
SETTLE_SECONDS_MAX = 45.0
CONVERGE_SECONDS_MAX = 30.0
POLL_SECONDS = 0.1
READ_SECONDS_MAX = 3.0


class Order(Struct, frozen=True):
    """What a run is asked for."""

    seed: int
    operations: int
    faults: int
    kinds: tuple[str, ...]
    # By how much slower than a machine of its own this one may be.
    room: float
    # A safeguard that the services do without.
    mutant: str
    out: Path

    @property
    def plan(self) -> list[Fault]:
        return draw_plan(self.seed, self.operations, self.faults, self.kinds)


class Run:
    """A run under way."""

    def __init__(self, order: Order, world: World) -> None:
        self.order, self.world = order, world
        self.started = time.monotonic()
        self.shop = Shop(order.seed)
        self.recorder = Recorder(order.out / FILE_NAME, self.started)
        self.faults = Faults(world, order.plan, self.started)
        self.callers: dict[str, Caller] = {}
        self.final: dict[str, Any] = {"room": order.room, "seed": order.seed}

    async def play(self) -> None:
        """Play it from the opening to the last figure, and write all of it down."""
        key = await self._prepare()
        async with self.world.serving(self.order.out, self.order.mutant):
            for service in self.world.services:
                self.callers[service.name] = Caller(service.port, key)
            supervising = asyncio.create_task(self.world.supervise())
            async with asyncio.timeout(OPEN_SECONDS_MAX):
                await self._until_ready()
            opener = self._shopper("opener")
            for wish in self.shop.opening():
                assert await opener.carry_out(wish) is not None, wish
            await self._trade()
            await self._heal()
            await self._settle()
            await self._read_figures()
            supervising.cancel()
            await self._stop()
        await self._audit()
        await self._write_down()

    async def _prepare(self) -> str:
        """Say how many shards there are, as `ringfence init` does, and make a key."""
        url = self.world.postgres.url
        await migrate_database(url)
        async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
            assert await lay_out(pool, SHARDS) == SHARDS
            return (await KeyStore(pool).add("chaos", ["admin"], [])).text

    def _shopper(self, name: str) -> Shopper:
        return Shopper(name, self.order.seed, self.shop, self.recorder, self.callers)

    async def _trade(self) -> None:
        opened = self.recorder.operations
        self.recorder.on_operation = lambda number: self.faults.note_operation(number - opened)
        last = opened + self.order.operations

        def is_over() -> bool:
            return self.recorder.operations >= last and self.faults.are_over

        shoppers = [self._shopper(f"client-{number}") for number in range(CLIENTS)]
        trading = [asyncio.create_task(shopper.trade_until(is_over)) for shopper in shoppers]
        while not is_over():
            await asyncio.sleep(POLL_SECONDS)
            for task in trading:
                if task.done() and not is_over():
                    task.result()
        await self.faults.finish()
        _, late = await asyncio.wait(trading, timeout=RESOLVE_SECONDS_MAX)
        for task in late:
            task.cancel()
        await asyncio.gather(*trading, return_exceptions=True)
        self.final["unresolved"] = [each.unresolved.number for each in shoppers if each.unresolved]
        self.recorder.on_operation = lambda _: None

    async def _heal(self) -> None:
        await self.world.heal()
        healed = time.monotonic()
        self.final["healed_seconds"] = healed - self.started
        probing = [self._probe(number) for number in range(SHARDS)]
        self.final["sold_again_seconds"] = await asyncio.gather(*probing)
        try:
            async with asyncio.timeout(CONVERGE_SECONDS_MAX):
                await self._until_ready()
            self.final["ready_seconds"] = time.monotonic() - healed
        except TimeoutError:
            self.final["ready_seconds"] = None

    async def _probe(self, shard: int) -> float | None:
        """Sell something of a shard, now that everything should work again; say how long that took."""
        began = time.monotonic()
        lines = [line(self.shop.cold[shard], 1)]
        body = {"channel": CHANNEL, "lines": lines, "ttl_seconds": 900}
        wish = ("reserve", f"probe-{shard}", "POST", "/v1/reservations", body)
        while time.monotonic() - began < CONVERGE_SECONDS_MAX:
            if await self._shopper(f"prober-{shard}").carry_out(wish) is not None:
                return time.monotonic() - began
        return None

    async def _until_ready(self) -> None:
        for caller in self.callers.values():
            while await _status(caller, "/health/ready") != 200:  # noqa: ASYNC110 - not of this process
                await asyncio.sleep(POLL_SECONDS)

    async def _settle(self) -> None:
        """Wait until somebody has brought every cart that was cut off to its end."""
        connection = await asyncpg.connect(self.world.postgres.url)
        began = time.monotonic()
        self.final["settled_seconds"] = None
        while time.monotonic() - began < SETTLE_SECONDS_MAX:
            left = await connection.fetchval(
                "SELECT count(*) FROM claim WHERE settle_at IS NOT NULL"
            )
            if left == 0:
                self.final["settled_seconds"] = time.monotonic() - began
                break
            self.final["unsettled"] = left
            await asyncio.sleep(POLL_SECONDS)
        await connection.close()

    async def _read_figures(self) -> None:
        """Read every figure of every service, until all of them have said the same."""
        began = time.monotonic()
        self.final["agreed_seconds"] = None
        while time.monotonic() - began < CONVERGE_SECONDS_MAX:
            self.final["figures_read_ms"] = int(time.time() * 1000)
            told = {
                name: await read_stock(caller, (*self.shop.hot, *self.shop.cold), READ_SECONDS_MAX)
                for name, caller in self.callers.items()
            }
            first, *others = told.values()
            self.final["figures"] = told
            if first is not None and all(other == first for other in others):
                self.final["agreed_seconds"] = time.monotonic() - began
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _stop(self) -> None:
        self.final["served_until_ms"] = int(time.time() * 1000)
        self.final |= await stop_all(self.world.services, self.started)
        for caller in self.callers.values():
            caller.close()
        self.recorder.close()

    async def _audit(self) -> None:
        """Compare each gate with its ledger.

        A hold may have ended just as the last service did: the next process appends that to the ledger.
        """
        self.final["audits"] = audits = []
        url = self.world.postgres.url
        async with open_engine(Settings(), self.world.redis_url, url) as engine:
            await engine.start()
            for shard in engine.shards:
                found = await audit(shard.gate, shard.ledger, reads=shard.reads)
                complaints = [*found.breaks, *found.oversold, *found.differences]
                audits.append([str(complaint) for complaint in complaints])

    async def _write_down(self) -> None:
        out = self.order.out
        self.final["heads"] = await _dump_ledgers(self.world.postgres.url, out)
        self.final["faults"] = self.faults.struck
        self.final["seconds"] = time.monotonic() - self.started
        (out / FINAL_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(self.final)))
        for server in (*self.world.cluster.nodes, self.world.postgres):
            shutil.copy2(server.log_path, out / server.log_path.name)


async def _status(caller: Caller, path: str) -> int:
    try:
        return (await caller.get(path, READ_SECONDS_MAX)).status
    except (OSError, TimeoutError):
        return 0


async def _dump_ledgers(database_url: str, out: Path) -> list[dict[str, Any]]:
    """Write every row of every shard; give the heads."""
    connection = await asyncpg.connect(database_url)
    heads: list[dict[str, Any]] = []
    for shard in range(SHARDS):
        rows = await connection.fetch(
            "SELECT sequence, epoch, at_ms, kind, subject, hash, body FROM ledger"
            " WHERE shard = $1 ORDER BY sequence",
            shard,
        )
        head = await connection.fetchrow(
            "SELECT epoch, last_sequence, last_hash FROM shard_head WHERE shard = $1", shard
        )
        heads.append(dict(head or {}))
        with (out / ledger_name(shard)).open("wb") as file:
            for row in rows:
                file.write(msgspec.json.encode(dict(row)) + b"\n")
    await connection.close()
    return heads
