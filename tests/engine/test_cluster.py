"""A Redis Cluster whose masters are lost and whose slots move, and the shards that sell on it meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest
from cluster import PASSWORD, Cluster, ClusterNode, placed, slot_of
from engine.sellers import Seller, expect_one_truth, open_seller
from engine.shards import until
from in_process import CHANNEL, LOCATION, SKU, served

from allocation.errors import GateUnverified
from allocation.gate.keys import KEY_NAMES, shard_keys
from allocation.gate.redis_gate import RedisGate
from allocation.gate.servers import RedisServers
from allocation.takeover import take_over_and_rebuild
from service.embedded.errors import StartError
from service.suitability import require_suitable_redis

HOUR_MS = 3_600_000


@pytest.fixture(scope="module")
def _started() -> Iterator[Cluster]:
    with placed() as placement:
        cluster = Cluster(placement)
        try:
            asyncio.run(cluster.start())
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
async def cluster(_started: Cluster) -> Cluster:
    """Give three masters, each with a replica and nothing in it."""
    await _started.heal()
    return _started


@pytest.fixture
async def nodes(cluster: Cluster) -> AsyncIterator[RedisServers]:
    """Give the cluster to gates."""
    servers = RedisServers(cluster.url)
    yield servers
    await servers.close()


@pytest.fixture
async def sellers(
    cluster: Cluster, nodes: RedisServers, database_url: str
) -> AsyncIterator[list[Seller]]:
    """Give three shards, each on a master of its own, with one ledger; all must be true in the end."""
    async with AsyncExitStack() as stack:
        sellers = [
            await stack.enter_async_context(open_seller(nodes, shard, database_url))
            for shard in await cluster.shards_of_each_master()
        ]
        await asyncio.gather(*(seller.sell(5) for seller in sellers))
        yield sellers
        for seller in sellers:
            await seller.sell(5)
            await expect_one_truth(nodes, seller, database_url)


def shard_of(seller: Seller) -> int:
    """Give the shard that a seller sells from."""
    return seller.shard.gate.shard


async def sold_on(node: ClusterNode, seller: Seller) -> int:
    """Say how far the gate of a shard has come on a node, which is nowhere where it is another's."""
    async with node.redis as redis:
        return int(await redis.hget(shard_keys(shard_of(seller))[0], "sequence") or 0)


async def test_each_shard_sells_on_the_master_of_its_slot(
    cluster: Cluster, sellers: list[Seller]
) -> None:
    """The slot of a shard's keys says which node decides for it."""
    owners = [await cluster.owner(shard_of(seller)) for seller in sellers]
    assert len({owner.node_id for owner in owners}) == 3
    for owner, seller in zip(owners, sellers, strict=True):
        assert await sold_on(owner, seller) >= 5


async def test_a_master_is_lost(cluster: Cluster, sellers: list[Seller]) -> None:
    """Its shard goes on at the replica that the cluster promotes; the other shards never stop."""
    lost, *others = sellers
    owner = await cluster.owner(shard_of(lost))
    before = [len(other.sold) for other in others]
    async with AsyncExitStack() as stack:
        for seller in sellers:
            await stack.enter_async_context(seller.selling())
        await until(lambda: len(lost.sold) > 20)
        owner.kill()
        sold = len(lost.sold)
        await until(lambda: len(lost.sold) > sold + 20)
    assert lost.refused > 0
    assert await cluster.owner(shard_of(lost)) is not owner
    for other, sold in zip(others, before, strict=True):
        assert len(other.sold) > sold + 20
        assert other.refused == other.unknown == 0


async def test_a_master_comes_back_and_is_promoted_again(
    cluster: Cluster, sellers: list[Seller]
) -> None:
    """A fail-over by hand, and one back: nothing is asked of the node that was the master before."""
    seller = sellers[0]
    for _ in range(2):
        owner = await cluster.owner(shard_of(seller))
        successor = await replica_of(cluster, owner)
        async with seller.selling():
            await cluster.promote(successor)
            sold = len(seller.sold)
            await until(lambda before=sold: len(seller.sold) > before + 20)
        assert await sold_on(successor, seller) >= len(seller.sold)
        await cluster.settle()


async def test_a_slot_moves_and_comes_back(cluster: Cluster, sellers: list[Seller]) -> None:
    """While its keys are on two nodes nothing is decided and callers hear so; then it sells on the other node."""
    seller = sellers[0]
    here, there = [await cluster.owner(shard_of(each)) for each in sellers[:2]]
    for source, target in ((here, there), (there, here)):
        async with cluster.moving(shard_of(seller), target) as move:
            # All keys are there until the first is moved.
            assert await seller.try_once()
            keys = await move.keys()
            assert len(keys) == len(KEY_NAMES)
            for key in keys:
                await move.move_key(key)
                assert not await seller.try_once()
            # Nor is it verified while any key is elsewhere.
            with pytest.raises(GateUnverified):
                await seller.shard.gate.prepare()
        assert not await source.call("CLUSTER", "COUNTKEYSINSLOT", slot_of(shard_of(seller)))
        await seller.sell(5)
        assert await sold_on(target, seller) >= len(seller.sold)
    assert seller.unknown == 0
    assert seller.refused >= 2 * len(KEY_NAMES)


async def test_a_rebuild_while_a_slot_moves(cluster: Cluster, sellers: list[Seller]) -> None:
    """It cannot be done there, and leaves no state; the new owner gets all of it from the ledger."""
    seller = sellers[0]
    owner, target = [await cluster.owner(shard_of(each)) for each in sellers[:2]]
    async with cluster.moving(shard_of(seller), target) as move:
        with pytest.raises(GateUnverified):
            await take_over_and_rebuild(
                seller.shard.gate, seller.shard.ledger, lambda _read, _through: None
            )
        for key in await move.keys():
            await move.move_key(key)
        assert not await seller.try_once()
    await seller.sell(5)
    assert await sold_on(target, seller) >= len(seller.sold)
    await cluster.move(shard_of(seller), owner)


async def test_slots_move_under_sales(cluster: Cluster, sellers: list[Seller]) -> None:
    """Every shard changes its node while it sells, and each call that came between was not decided."""
    owners = [await cluster.owner(shard_of(each)) for each in sellers]
    async with AsyncExitStack() as stack:
        for seller in sellers:
            await stack.enter_async_context(seller.selling())
        for targets in ([*owners[1:], owners[0]], owners):
            for seller, target in zip(sellers, targets, strict=True):
                sold = len(seller.sold)
                await until(lambda each=seller, before=sold: len(each.sold) > before + 5)
                await cluster.move(shard_of(seller), target)
    assert [seller.unknown for seller in sellers] == [0, 0, 0]


async def test_a_node_is_added(cluster: Cluster, sellers: list[Seller]) -> None:
    """A shard moves to a node that nobody named, and back before that one is taken away."""
    seller = sellers[0]
    owner = await cluster.owner(shard_of(seller))
    added = await cluster.add()
    try:
        await cluster.move(shard_of(seller), added)
        await seller.sell(5)
        assert await sold_on(added, seller) >= len(seller.sold)
    finally:
        await cluster.move(shard_of(seller), owner)
        await cluster.remove(added)
    await seller.sell(5)


async def test_the_node_that_was_named_is_lost(cluster: Cluster, sellers: list[Seller]) -> None:
    """The others are known from what it told; they say where a shard has gone."""
    seller, other = sellers[:2]
    owner, target = [await cluster.owner(shard_of(each)) for each in (seller, other)]
    named = await replica_of(cluster, owner)
    servers = RedisServers(f"redis://:{PASSWORD}@{named.address}")
    gate = RedisGate(servers, shard_of(seller), HOUR_MS, HOUR_MS)
    try:
        identity = await gate.prepare()
        named.kill()
        await cluster.move(shard_of(seller), target)
        assert await gate.prepare() != identity
    finally:
        await servers.close()
        await cluster.move(shard_of(seller), owner)


async def test_a_slot_that_nobody_has(
    cluster: Cluster, nodes: RedisServers, sellers: list[Seller]
) -> None:
    """Its shard decides nothing until a node itself says that it has the slot, whatever others say of it."""
    seller = sellers[0]
    owner = await cluster.owner(shard_of(seller))
    slot = slot_of(shard_of(seller))
    await owner.call("CLUSTER", "DELSLOTS", slot)
    try:
        assert not await seller.try_once()
        with pytest.raises(GateUnverified):
            await nodes.find(shard_of(seller))
        with pytest.raises(GateUnverified):
            await seller.shard.gate.prepare()
        assert (seller.refused, seller.unknown) == (1, 0)
    finally:
        for node in await cluster.masters():
            if node is not owner:
                await node.call("CLUSTER", "DELSLOTS", slot)
        await owner.call("CLUSTER", "ADDSLOTS", slot)


async def replica_of(cluster: Cluster, master: ClusterNode) -> ClusterNode:
    """Give the node that follows a master."""
    for node in cluster.nodes:
        told = await node.told("replication")
        if told["role"] == "slave" and told["master_port"] == master.access.port:
            return node
    raise LookupError(master.address)


async def test_the_service_on_a_cluster(cluster: Cluster, database_url: str) -> None:
    """A whole service starts on the nodes that are named, and sells."""
    await require_suitable_redis(cluster.url)
    async with served(cluster.url, database_url) as running:
        stock = {
            "source": "wms",
            "event_id": "e1",
            "kind": "receipt",
            "lines": [{"sku": SKU, "location": LOCATION, "quantity": 2}],
        }
        assert (await running.client.post("/v1/movements", json=stock)).status_code == 200
        wanted = {"channel": CHANNEL, "lines": [{"sku": SKU, "quantity": 1}]}
        headers = {"Idempotency-Key": "first"}
        answer = await running.client.post("/v1/reservations", json=wanted, headers=headers)
        assert answer.status_code == 201, answer.text
        assert await running.on_hand() == 2


async def test_a_node_that_would_drop_stock(cluster: Cluster) -> None:
    """Every node is looked at, also those that are not named, and replicas too."""
    node = await replica_of(cluster, await cluster.owner(0))
    await node.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StartError, match=f"{node.address} has maxmemory-policy allkeys-lru"):
            await require_suitable_redis(cluster.url)
    finally:
        await node.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
