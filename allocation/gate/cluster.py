"""What one node of a Redis Cluster says of the cluster."""

from typing import Any, Self

from msgspec import Struct
from redis.asyncio import Redis

# How a node names another one that it knows no address of, in different versions.
UNKNOWN_HOSTS = ("", "?")


class Node(Struct, frozen=True):
    """A node, and where it says that clients reach it."""

    node_id: str
    host: str
    port: int


class Range(Struct, frozen=True):
    """Some slots in a row, with the node that has them."""

    first: int
    last: int
    owner: Node


class ClusterView(Struct, frozen=True):
    """One node's view: who it is, whether it serves any slot at all, and who has which."""

    node_id: str
    serving: bool
    ranges: list[Range]
    # All nodes that it knows to have slots, or to follow one that does.
    nodes: list[Node]

    @classmethod
    async def ask(cls, redis: Redis, host: str) -> Self:
        """Ask a node that was reached at `host`. Raises RedisError where it is of no cluster."""
        node: Any = redis
        slots = await node.execute_command("CLUSTER", "SLOTS")
        node_id = await node.execute_command("CLUSTER", "MYID")
        state = await node.execute_command("CLUSTER", "INFO")
        owned = [
            (int(first), int(last), [_node(each, host) for each in nodes])
            for first, last, *nodes in slots
        ]
        return cls(
            _text(node_id),
            "cluster_state:ok" in _text(state),
            [Range(first, last, nodes[0]) for first, last, nodes in owned],
            list(dict.fromkeys(each for _, _, nodes in owned for each in nodes)),
        )

    def owner(self, slot: int) -> Node | None:
        """Say which node has a slot; None for none."""
        for each in self.ranges:
            if each.first <= slot <= each.last:
                return each.owner
        return None

    def serves(self, slot: int) -> bool:
        """Say whether it is this node itself that has a slot, and serves it."""
        owner = self.owner(slot)
        return self.serving and owner is not None and owner.node_id == self.node_id


def _node(described: list[Any], asked_host: str) -> Node:
    host, port, node_id = described[:3]
    named = _text(host or b"")
    return Node(_text(node_id), asked_host if named in UNKNOWN_HOSTS else named, int(port))


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
