"""Two Redis servers of which one is the master: whichever it is, the shard sells there."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from cluster import PASSWORD, OwnRedis, eventually, placed
from engine.sellers import Seller, expect_one_truth, open_seller

from allocation.errors import Fenced, GateUnverified
from allocation.gate.keys import shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.gate.redis_reads import RedisReads
from allocation.gate.servers import RedisServers, server_urls
from allocation.ports import Identity
from service.embedded.errors import StartError
from service.settings import Settings, SettingsError
from service.suitability import require_suitable_redis

HOUR_MS = 3_600_000
SHARD = 3
META = shard_keys(SHARD)[0]


class Pair:
    """Two servers; the first is the master."""

    def __init__(self, first: OwnRedis, second: OwnRedis) -> None:
        self.first, self.second = first, second

    @property
    def url(self) -> str:
        """Name both."""
        return f"redis://:{PASSWORD}@{self.first.address},{self.second.address}/0"

    async def begin(self) -> None:
        """Empty both, the second one following the first."""
        for server in (self.first, self.second):
            if server.has_ended():
                await server.start_whole()
            await server.call("REPLICAOF", "NO", "ONE")
            await server.call("CONFIG", "SET", "replica-serve-stale-data", "yes")
        await self.first.call("FLUSHALL")
        await self.first.call("FUNCTION", "FLUSH")
        await follow(self.second, self.first)


@pytest.fixture(scope="module")
def _two() -> Iterator[Pair]:
    with placed() as placement:
        taken: set[int] = set()
        pair = Pair(OwnRedis(placement, "first", taken), OwnRedis(placement, "second", taken))
        try:
            yield pair
        finally:
            pair.first.stop()
            pair.second.stop()


@pytest.fixture
async def pair(_two: Pair) -> Pair:
    """Give an empty master and its replica."""
    await _two.begin()
    return _two


@pytest.fixture
async def both(pair: Pair) -> AsyncIterator[RedisServers]:
    """Give both servers to a gate."""
    async with opened(pair.url) as both:
        yield both


@pytest.fixture
async def seller(both: RedisServers, database_url: str) -> AsyncIterator[Seller]:
    """Give a shard that sells on the first server."""
    async with open_seller(both, SHARD, database_url) as seller:
        await seller.sell(5)
        yield seller


class opened:  # noqa: N801 - a context, as a function would be
    """The servers of a URL, closed at the end."""

    def __init__(self, url: str) -> None:
        self._servers = RedisServers(url)

    async def __aenter__(self) -> RedisServers:
        return self._servers

    async def __aexit__(self, *_: object) -> None:
        await self._servers.close()


async def follow(replica: OwnRedis, master: OwnRedis) -> None:
    """Let one follow the other, and wait until it has all that the other has."""
    await replica.call("REPLICAOF", "127.0.0.1", master.access.port)
    await caught_up(replica, master)


async def caught_up(replica: OwnRedis, master: OwnRedis) -> None:
    """Wait until a replica has all that its master has."""

    async def has_all() -> bool:
        told, wanted = await replica.told("replication"), await master.told("replication")
        there = told["master_link_status"] == "up" and not told["master_sync_in_progress"]
        return there and told["slave_repl_offset"] >= wanted["master_repl_offset"]

    await eventually(has_all)


async def promote(server: OwnRedis) -> None:
    """Make a server a master."""
    await server.call("REPLICAOF", "NO", "ONE")


async def sold_on(server: OwnRedis) -> int:
    """Say how far the gate on a server has come."""
    return int(await server.call("HGET", META, "sequence") or 0)


async def test_a_replica_is_promoted_after_its_master_was_lost(
    pair: Pair, both: RedisServers, seller: Seller, database_url: str
) -> None:
    """The shard goes on at the promoted one; nothing that was sold is missing there."""
    await caught_up(pair.second, pair.first)
    pair.first.kill()
    assert not await seller.try_once()
    await promote(pair.second)
    await seller.sell(5)
    assert await sold_on(pair.second) >= len(seller.sold)
    await expect_one_truth(both, seller, database_url)


async def test_a_replica_is_promoted_that_lacks_the_last_sales(
    pair: Pair, both: RedisServers, seller: Seller, database_url: str
) -> None:
    """What the promoted one has not heard of comes from the ledger."""
    await caught_up(pair.second, pair.first)
    await pair.second.call("REPLICAOF", "127.0.0.1", 1)
    await seller.sell(5)
    pair.first.kill()
    await promote(pair.second)
    await seller.sell(5)
    await expect_one_truth(both, seller, database_url)


async def test_masters_change_places_and_back(
    pair: Pair, both: RedisServers, seller: Seller, database_url: str
) -> None:
    """A demoted master says that nothing was done, and is found again when it is promoted back."""
    for promoted, demoted in (
        (pair.second, pair.first),
        (pair.first, pair.second),
        (pair.second, pair.first),
    ):
        await caught_up(promoted, demoted)
        before = await sold_on(demoted)
        await promote(promoted)
        await follow(demoted, promoted)
        await seller.sell(5)
        assert await sold_on(promoted) >= before + 5
    assert seller.refused > 0
    assert seller.unknown == 0
    await expect_one_truth(both, seller, database_url)


async def test_a_promotion_beside_a_master_that_stays_one(
    pair: Pair, both: RedisServers, seller: Seller, database_url: str
) -> None:
    """The one in use stays in use as long as it says that it is a master, though the other is named first."""
    await caught_up(pair.second, pair.first)
    await promote(pair.second)
    await follow(pair.first, pair.second)
    await seller.sell(5)
    await caught_up(pair.first, pair.second)
    await promote(pair.first)
    before = await sold_on(pair.first)
    await seller.shard.gate.prepare()
    await seller.sell(5)
    assert await sold_on(pair.first) == before
    await follow(pair.second, pair.first)
    await seller.sell(5)
    assert await sold_on(pair.first) > before
    await expect_one_truth(both, seller, database_url)


async def test_two_processes_between_two_masters(
    pair: Pair, seller: Seller, database_url: str
) -> None:
    """They meet at the master that was taken over last, and neither takes the shard away again."""
    await caught_up(pair.second, pair.first)
    await promote(pair.second)
    url = f"redis://:{PASSWORD}@{pair.second.address},{pair.first.address}/0"
    async with (
        opened(url) as others,
        open_seller(others, SHARD, database_url, "other-") as other,
    ):
        await seller.sell(1)
        await other.sell(1)
        taken = [each.shard.pipeline.take_overs for each in (seller, other)]
        await asyncio.gather(seller.sell(20), other.sell(20))
        assert [each.shard.pipeline.take_overs for each in (seller, other)] == taken
        await expect_one_truth(others, seller, database_url)
        await expect_one_truth(others, other, database_url)
    assert await sold_on(pair.second) > await sold_on(pair.first)


async def test_reads_follow_the_shard(pair: Pair, both: RedisServers, seller: Seller) -> None:
    """A round of reads begins at the server that holds the shard then."""
    reads = RedisReads(both, SHARD)
    assert (await reads.moment()).sequence == await sold_on(pair.first)
    await caught_up(pair.second, pair.first)
    await promote(pair.second)
    await pair.first.call("REPLICAOF", "127.0.0.1", 1)
    await seller.sell(5)
    moment = await reads.moment()
    await reads.close()
    assert moment.sequence == await sold_on(pair.second) > await sold_on(pair.first)


async def test_no_master_at_all(pair: Pair, both: RedisServers) -> None:
    """Where each says that it follows another, the gate is not verified."""
    await pair.first.call("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(GateUnverified):
        await RedisGate(both, SHARD, HOUR_MS, HOUR_MS).prepare()


async def test_a_gate_that_is_only_read_finds_its_server(pair: Pair, both: RedisServers) -> None:
    """An audit prepares nothing."""
    await promote(pair.second)
    pair.first.kill()
    await pair.second.call("HSET", META, "epoch", 4, "sequence", 7, "hash", "h")
    gate = RedisGate(both, SHARD, HOUR_MS, HOUR_MS)
    assert await gate.present_state() == (4, 7, "h")
    assert await gate.scan_stock(0, 10) == (0, {})


async def test_a_gate_that_was_not_prepared_decides_nothing(both: RedisServers) -> None:
    """It finds its server all the same, whose identity it cannot know."""
    prepared = RedisGate(both, SHARD, HOUR_MS, HOUR_MS)
    await prepared.prepare()
    gate = RedisGate(both, SHARD, HOUR_MS, HOUR_MS, prepared.clock)
    with pytest.raises(Fenced):
        await gate.decide(1, Identity("nobody", "nobody"), [], 0)


async def _read_only(pair: Pair, _decide: Any) -> None:
    await pair.first.call("REPLICAOF", "127.0.0.1", 1)


async def _without_a_master(pair: Pair, _decide: Any) -> None:
    await pair.first.call("CONFIG", "SET", "replica-serve-stale-data", "no")
    await pair.first.call("REPLICAOF", "127.0.0.1", 1)


@pytest.mark.parametrize("change", [_read_only, _without_a_master])
async def test_what_a_server_refuses_to_run_was_not_done(
    pair: Pair, both: RedisServers, change: Any
) -> None:
    """The caller of a decision hears that nothing was decided, not that nobody knows."""
    gate = RedisGate(both, SHARD, HOUR_MS, HOUR_MS)
    identity = await gate.prepare()
    await change(pair, gate)
    with pytest.raises(Fenced):
        await gate.decide(1, identity, [], 0)


async def test_a_server_that_is_still_loading_decides_nothing(
    pair: Pair, both: RedisServers
) -> None:
    """Redis that reads its file back says so, and nothing was decided."""
    gate = RedisGate(both, SHARD, HOUR_MS, HOUR_MS)
    await gate.prepare()
    async with pair.first.redis as redis:
        await redis.mset({f"filling-{number}": "x" for number in range(5_000)})
        await redis.execute_command("CONFIG", "SET", "key-load-delay", "1000")
        await redis.execute_command(
            "CONFIG", "SET", "loading-process-events-interval-bytes", "1024"
        )
        reloading = asyncio.create_task(redis.execute_command("DEBUG", "RELOAD"))
        loading = asyncio.create_task(_is_loading(pair.first))
        await asyncio.wait({reloading, loading}, return_when=asyncio.FIRST_COMPLETED)
        assert not reloading.done()
        with pytest.raises(Fenced):
            await gate.decide(1, Identity("", ""), [], 0)
        await pair.first.call("CONFIG", "SET", "key-load-delay", "0")
        await reloading


async def _is_loading(server: OwnRedis) -> None:
    await eventually(lambda: _says_loading(server))


async def _says_loading(server: OwnRedis) -> bool:
    return bool((await server.told("persistence"))["loading"])


def test_urls_of_the_servers() -> None:
    """Each server that is named has user, password, database and options of the whole URL."""
    assert server_urls("rediss://me:a,b@one:1,[::1]:2,three/4?ssl_ca_certs=x") == [
        "rediss://me:a,b@one:1/4?ssl_ca_certs=x",
        "rediss://me:a,b@[::1]:2/4?ssl_ca_certs=x",
        "rediss://me:a,b@three/4?ssl_ca_certs=x",
    ]
    for single in ("redis://a:1/0", "redis:///1", "unix://me:p@/tmp/a,b.sock?db=1"):
        assert server_urls(single) == [single]


async def test_a_pair_is_suitable(pair: Pair) -> None:
    """One may be away or a replica; where none is a master, or none is there, the start ends with a sentence."""
    await require_suitable_redis(pair.url)
    await pair.first.call("REPLICAOF", "127.0.0.1", 1)
    with pytest.raises(StartError, match=r"^None of Redis at .*, Redis at .* is a master"):
        await require_suitable_redis(pair.url)
    with pytest.raises(StartError, match="is a replica; name its master"):
        await require_suitable_redis(pair.second.url)
    pair.first.kill()
    await promote(pair.second)
    await require_suitable_redis(pair.url)
    pair.second.kill()
    with pytest.raises(StartError, match=r"cannot be used.*cannot be used") as told:
        await require_suitable_redis(pair.url)
    assert PASSWORD not in str(told.value)


@pytest.mark.parametrize(
    "url", ["redis://a,,b", "redis://a,", "redis://,a", "redis://", "http://a"]
)
def test_urls_that_leave_a_server_out(url: str) -> None:
    """A setting that names nothing between two commas is one sentence."""
    with pytest.raises(SettingsError, match="RINGFENCE_REDIS_URL must be"):
        Settings.from_environment({"RINGFENCE_REDIS_URL": url})


@pytest.mark.parametrize("url", ["redis://u:p,@a:1,[::1]/0", "redis:///0", "unix:///tmp/a,b?db=1"])
def test_urls_of_one_or_more(url: str) -> None:
    """Commas elsewhere than between servers are part of what they stand in."""
    assert Settings.from_environment({"RINGFENCE_REDIS_URL": url}).redis_url == url
