"""A real Redis Cluster on loopback, whose nodes can be killed, and whose slots can be moved."""

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.crc import key_slot
from redis.exceptions import RedisError

from allocation.gate.keys import shard_keys
from service.embedded.credentials import Access
from service.embedded.placement import Placement, place
from service.embedded.ports import free_port
from service.embedded.redis_server import RedisServer

PASSWORD = "of-every-node"  # noqa: S105 - of servers on loopback that live as long as a test
SLOTS = 16_384
MASTERS = 3
# A master that is silent for so long is replaced; shorter, and a busy machine would replace masters that live.
NODE_TIMEOUT_MS = 1_000
WAIT_SECONDS_MAX = 30.0
PROMOTION_SECONDS = 0.5
LOOK_SECONDS = 0.02
SHARDS_MAX = 100
# Another redis-server than the embedded one, say the oldest that is supported.
BINARY_VARIABLE = "TEST_REDIS_SERVER"
# Replicas are copied to at once, and stay with the master that they were given.
CONFIGURATION = """\
masterauth {password}
repl-diskless-sync-delay 0
repl-ping-replica-period 1
enable-debug-command local
"""
CLUSTER_CONFIGURATION = """\
cluster-enabled yes
cluster-port {port}
cluster-announce-ip 127.0.0.1
cluster-node-timeout {timeout_ms}
cluster-require-full-coverage no
cluster-allow-replica-migration no
"""


class OwnRedis(RedisServer):
    """A redis-server for a test, with lines of its own in its settings."""

    name = "A Redis of the test"

    def __init__(self, placement: Placement, folder_name: str, taken: set[int]) -> None:
        port = free_port(taken)
        taken.add(port)
        self.folder_name = folder_name
        super().__init__(placement, Access(port, PASSWORD), taken)
        self.lines = CONFIGURATION.format(password=PASSWORD)

    @property
    def redis(self) -> Any:
        """Give a client, for one `async with`."""
        return Redis.from_url(self.url)

    def prepare(self) -> None:
        super().prepare()
        with (self.folder / "redis.conf").open("a", encoding="utf-8") as file:
            file.write(self.lines)

    async def start_whole(self) -> None:
        """Start it, and wait until it takes commands."""
        self.start()
        await until(self.is_ready)

    def kill(self) -> None:
        """End it as a lost machine ends."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    async def call(self, *words: str | int) -> Any:
        """Send one command."""
        async with self.redis as redis:
            return await redis.execute_command(*words)

    async def told(self, section: str) -> dict[str, Any]:
        """Read what it tells of itself."""
        async with self.redis as redis:
            told: dict[str, Any] = await redis.info(section)
            return told


class ClusterNode(OwnRedis):
    """One node; the port for the others is as free as that for clients."""

    def __init__(self, placement: Placement, folder_name: str, taken: set[int]) -> None:
        super().__init__(placement, folder_name, taken)
        self.bus_port = free_port(taken)
        taken.add(self.bus_port)
        self.lines += CLUSTER_CONFIGURATION.format(port=self.bus_port, timeout_ms=NODE_TIMEOUT_MS)
        self.node_id = ""

    async def start_whole(self) -> None:
        """Start it, and learn its name in the cluster, which it keeps in its folder."""
        await super().start_whole()
        self.node_id = (await self.call("CLUSTER", "MYID")).decode()

    async def owned(self) -> list[range]:
        """Give the slots that this node says are its own."""
        ranges = await self.call("CLUSTER", "SLOTS")
        return [
            range(first, last + 1)
            for first, last, owner, *_ in ranges
            if owner[2].decode() == self.node_id
        ]

    async def is_settled(self, nodes: int, masters: int) -> bool:
        """Say whether it serves, and knows a cluster with so many nodes, each in its role and linked."""
        if b"cluster_state:ok" not in await self.call("CLUSTER", "INFO"):
            return False
        known = (await self.call("CLUSTER", "NODES")).decode().splitlines()
        healthy = [line for line in known if "fail" not in line and "handshake" not in line]
        leading = [
            line for line in healthy if "master" in line.split()[2] and "-" in line.split()[-1]
        ]
        replication = await self.told("replication")
        linked = replication["role"] == "master" or replication["master_link_status"] == "up"
        return linked and len(healthy) == nodes and len(leading) == masters


class Cluster:
    """Three masters with all slots between them, and a replica of each."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._taken: set[int] = set()
        self.nodes = [self._new_node() for _ in range(2 * MASTERS)]

    @property
    def url(self) -> str:
        """Name two of the nodes, as an operator does."""
        first, second = (node.address for node in self.nodes[:2])
        return f"redis://:{PASSWORD}@{first},{second}/0"

    async def start(self) -> None:
        """Start all nodes and join them."""
        await asyncio.gather(*(node.start_whole() for node in self.nodes))
        masters, replicas = self.nodes[:MASTERS], self.nodes[MASTERS:]
        for number, node in enumerate(self.nodes, 1):
            await node.call("CLUSTER", "SET-CONFIG-EPOCH", number)
            await self._meet(node)
        bounds = [SLOTS * part // MASTERS for part in range(MASTERS + 1)]
        for number, master in enumerate(masters):
            await master.call("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for replica, master in zip(replicas, masters, strict=True):
            await eventually(lambda r=replica, m=master: _replicate(r, m))
        await self.settle()

    def stop(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.stop()

    async def settle(self) -> None:
        """Wait until every node serves and knows of all others, each replica linked to its master."""
        for node in self.nodes:
            await eventually(lambda each=node: each.is_settled(len(self.nodes), MASTERS))

    async def heal(self) -> None:
        """Start again what was killed, and empty everything."""
        for node in self.nodes:
            if node.has_ended():
                await until(node.revive)
                await until(node.is_ready)
        await self.settle()
        for node in await self.masters():
            await node.call("FLUSHALL")
            await node.call("FUNCTION", "FLUSH")

    async def add(self) -> ClusterNode:
        """Add a node without slots."""
        node = self._new_node()
        self.nodes.append(node)
        await node.start_whole()
        await self._meet(node)
        await eventually(lambda: _know_all(self.nodes))
        return node

    async def remove(self, node: ClusterNode) -> None:
        """Take a node without slots out of the cluster."""
        self.nodes.remove(node)
        node.kill()
        for other in self.nodes:
            await other.call("CLUSTER", "FORGET", node.node_id)

    async def masters(self) -> list[ClusterNode]:
        """Give the masters that run."""
        running = [node for node in self.nodes if not node.has_ended()]
        return [node for node in running if (await node.told("replication"))["role"] == "master"]

    async def promote(self, replica: ClusterNode) -> None:
        """Let a replica take its master's place; it is asked again where its master does not know it yet."""

        async def leads() -> bool:
            if (await replica.told("replication"))["role"] == "master":
                return True
            await replica.call("CLUSTER", "FAILOVER")
            await asyncio.sleep(PROMOTION_SECONDS)
            return False

        await eventually(leads)

    async def owner(self, shard: int) -> ClusterNode:
        """Give the node that says itself that it has a shard's slot."""
        for node in self.nodes:
            if not node.has_ended() and any(slot_of(shard) in each for each in await node.owned()):
                return node
        raise LookupError(f"Nobody has the slot of shard {shard}.")

    async def shards_of_each_master(self) -> list[int]:
        """Give for each master the first shard whose slot it has."""
        found: dict[str, int] = {}
        for shard in range(SHARDS_MAX):
            found.setdefault((await self.owner(shard)).node_id, shard)
            if len(found) == MASTERS:
                break
        return list(found.values())

    @asynccontextmanager
    async def moving(self, shard: int, target: ClusterNode) -> AsyncIterator["SlotMove"]:
        """Begin to move a shard's slot; at the end all nodes are told that it has moved."""
        source, slot = await self.owner(shard), slot_of(shard)
        await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
        await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)
        yield SlotMove(shard, source, target)
        # The new owner first: else nobody would have the slot for a moment.
        for node in (target, source, *await self.masters()):
            await node.call("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)

    async def move(self, shard: int, target: ClusterNode) -> None:
        """Move a shard's slot with all that is in it."""
        async with self.moving(shard, target) as move:
            for key in await move.keys():
                await move.move_key(key)

    async def _meet(self, node: ClusterNode) -> None:
        if node is not self.nodes[0]:
            port = node.access.port
            await self.nodes[0].call("CLUSTER", "MEET", "127.0.0.1", port, node.bus_port)

    def _new_node(self) -> ClusterNode:
        return ClusterNode(self._placement, f"redis-{len(self._taken)}", self._taken)


class SlotMove:
    """The move of a shard's slot from one node to another, key by key."""

    def __init__(self, shard: int, source: ClusterNode, target: ClusterNode) -> None:
        self._slot, self._source, self._target = slot_of(shard), source, target

    async def keys(self) -> list[str]:
        """Give the keys that have not been moved."""
        keys = await self._source.call("CLUSTER", "GETKEYSINSLOT", self._slot, 100)
        return sorted(key.decode() for key in keys)

    async def move_key(self, key: str) -> None:
        """Move one key."""
        port = self._target.access.port
        words = ("MIGRATE", "127.0.0.1", port, key, 0, 5_000, "AUTH", PASSWORD)
        assert await self._source.call(*words) == b"OK"


def slot_of(shard: int) -> int:
    """Give the slot of a shard's keys."""
    return key_slot(shard_keys(shard)[0].encode())


async def until(happened: Callable[[], object]) -> None:
    """Look until something has happened that tells nobody."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not happened():
        assert time.monotonic() < deadline, "It did not happen in time."
        await asyncio.sleep(LOOK_SECONDS)


async def eventually(happens: Callable[[], Awaitable[object]]) -> None:
    """Ask servers until they say so; one that cannot answer yet has not."""
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while True:
        try:
            if await happens():
                return
        except (RedisError, OSError, LookupError):
            pass
        assert time.monotonic() < deadline, "It did not happen in time."
        await asyncio.sleep(LOOK_SECONDS)


async def _replicate(replica: ClusterNode, master: ClusterNode) -> bool:
    # It is refused until the replica has heard of its master.
    await replica.call("CLUSTER", "REPLICATE", master.node_id)
    return True


async def _know_all(nodes: Sequence[ClusterNode]) -> bool:
    """Say whether every node serves, knows every other one, and the newest epoch: else its claims would be old."""
    known = [(await node.call("CLUSTER", "NODES")).decode() for node in nodes]
    told = [(await node.call("CLUSTER", "INFO")).decode() for node in nodes]
    epochs = {text.partition("cluster_current_epoch:")[2].split()[0] for text in told}
    serving = all("cluster_state:ok" in text for text in told)
    return (
        serving
        and len(epochs) == 1
        and all(len(text.splitlines()) == len(nodes) and "handshake" not in text for text in known)
    )


@contextmanager
def placed() -> Iterator[Placement]:
    """Give a folder that servers of a test can use, with the binary that the environment asks for."""
    # Not tmp_path: its parents are closed to the account that the servers run under.
    folder = Path(tempfile.mkdtemp(prefix="ringfence-cluster-"))
    folder.chmod(0o755)
    placement = place(folder)
    binary = os.environ.get(BINARY_VARIABLE)
    try:
        yield placement._replace(redis_binary=Path(binary)) if binary else placement
    finally:
        shutil.rmtree(folder)


@asynccontextmanager
async def running_cluster() -> AsyncIterator[Cluster]:
    """Run a cluster."""
    with placed() as placement:
        cluster = Cluster(placement)
        try:
            await cluster.start()
            yield cluster
        finally:
            cluster.stop()
