"""A disk without space, under what Redis and Postgres write first: nothing acknowledged is lost."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from chaos.checkers import CHECKERS, verdicts
from chaos.clocks import give_clock
from chaos.disks import small_disk
from chaos.processes import revive
from chaos.replicas import RedisPair
from mutants.scene import Scene, scene
from redis.asyncio import Redis

from service.embedded.servers import EmbeddedServers, embedded_servers
from service.settings import Settings

UNITS = 100_000
LOOK_SECONDS = 0.05
SALES_MORE = 5


@pytest.fixture
def own_servers() -> Iterator[EmbeddedServers]:
    """Start servers whose disks may be full."""
    folder = Path(tempfile.mkdtemp(prefix="ringfence-disks-"))
    # The servers run under another account than root's.
    folder.chmod(0o755)
    with embedded_servers(Settings(data_dir=folder / "servers", demo=False)) as started:
        give_clock(started)
        yield started
    shutil.rmtree(folder)


@asynccontextmanager
async def _selling(opened: Scene) -> AsyncIterator[None]:
    """Sell one thing after the other meanwhile, and a few more in the end."""
    is_over = asyncio.Event()

    async def sell() -> None:
        number, more = 0, SALES_MORE
        while more:
            more -= is_over.is_set()
            number += 1
            await opened.reserve(f"sold-{number}")

    selling = asyncio.create_task(sell())
    yield
    is_over.set()
    await selling


async def _until(happened: Callable[[], Any]) -> None:
    while not await happened():  # noqa: ASYNC110 - a server tells nobody
        await asyncio.sleep(LOOK_SECONDS)


@pytest.mark.parametrize("policy", ["everysec", "always"])
async def test_a_full_disk_of_redis_loses_nothing(
    policy: str, own_servers: EmbeddedServers, tmp_path: Path
) -> None:
    """Redis refuses what it cannot write, or ends where it writes at once; with room it is used again."""
    pair = RedisPair(own_servers)
    server, folder = pair.in_use, pair.in_use.folder / "appendonlydir"

    async def cannot_write() -> bool:
        return (
            server.has_ended()
            or (await redis.info("persistence"))["aof_last_write_status"] == "err"
        )

    with small_disk(server, folder) as disk:
        async with scene("none", own_servers, pair, tmp_path, UNITS) as opened:
            redis: Any = Redis.from_url(server.url)
            await redis.config_set("appendfsync", policy)
            async with _selling(opened):
                disk.fill()
                await _until(cannot_write)
                assert server.has_ended() is (policy == "always")
                disk.give_room()
                await revive(server)
            await redis.aclose()
            assert verdicts(await opened.end()) == {checker: [] for checker in CHECKERS}


async def test_a_full_disk_of_postgres_loses_nothing(
    own_servers: EmbeddedServers, tmp_path: Path
) -> None:
    """Postgres panics where it cannot write its log; what was acknowledged is there when it is back."""
    server = own_servers.postgres
    assert server is not None
    folder = server.folder / "pg_wal"
    with small_disk(server, folder) as disk:
        async with scene("none", own_servers, RedisPair(own_servers), tmp_path, UNITS) as opened:
            async with _selling(opened):
                disk.fill()
                await _fill_log(opened)
                assert "PANIC" in server.log_path.read_text()
                disk.give_room()
                await revive(server)
            assert verdicts(await opened.end()) == {checker: [] for checker in CHECKERS}


async def _fill_log(opened: Scene) -> None:
    """Use up what Postgres has laid by for its log."""
    try:
        operator = await asyncpg.connect(opened.database_url)
        while True:
            await operator.execute("SELECT pg_switch_wal()")
            await operator.execute("SELECT txid_current()")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return
