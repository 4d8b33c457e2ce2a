"""Carries the plan out: one fault at a time on each target, several targets at once."""

import asyncio
import signal
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from chaos.processes import Service
from cluster import PASSWORD, ClusterNode, eventually, slot_of, until
from cluster_chaos.plan import Fault
from cluster_chaos.world import World
from redis.exceptions import ResponseError

# The services write while a slot moves: what one of them has made anew at the source goes over again.
MOVE_ROUNDS_MAX = 200


class Faults:
    """The plan under way."""

    def __init__(self, world: World, plan: Sequence[Fault], started: float) -> None:
        # What is known of each fault that was carried out; times in seconds since the start.
        self.struck: list[dict[str, Any]] = []
        self._world, self._started = world, started
        self._left = list(plan)
        self._turns: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._under_way: list[asyncio.Task[None]] = []

    @property
    def are_over(self) -> bool:
        return not self._left and all(task.done() for task in self._under_way)

    def note_operation(self, number: int) -> None:
        """Learn how many operations have begun: what is due strikes."""
        while self._left and self._left[0].at_operation <= number:
            self._under_way.append(asyncio.create_task(self._carry_out(self._left.pop(0))))

    async def finish(self) -> None:
        """Raise what went wrong with going wrong."""
        assert not self._left, "Bug: operations ended before the plan"
        await asyncio.gather(*self._under_way)

    async def _carry_out(self, fault: Fault) -> None:
        async with self._turns[fault.target]:
            struck: dict[str, Any] = {
                "kind": fault.kind,
                "target": fault.target,
                "at_operation": fault.at_operation,
                "began": time.monotonic() - self._started,
            }
            self.struck.append(struck)
            struck["note"] = await _ACTS[fault.kind](self._world, fault)
            struck["ended"] = time.monotonic() - self._started


async def _kill_master(world: World, fault: Fault) -> str:
    master = await world.cluster.owner(fault.shard)
    master.kill()
    successor = await _successor(world, fault.shard, master)
    await asyncio.sleep(fault.seconds)
    await until(master.revive)
    await until(master.is_ready)
    await world.cluster.settle()
    return f"{master.folder_name}, followed by {successor.folder_name}"


async def _pause_master(world: World, fault: Fault) -> str:
    """Stop a master until it has been replaced, and let it go on in the belief that it has not."""
    master = await world.cluster.owner(fault.shard)
    assert master.process is not None
    master.process.send_signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        successor = await _successor(world, fault.shard, master)
        await asyncio.sleep(max(0.0, fault.seconds - (time.monotonic() - began)))
    finally:
        master.process.send_signal(signal.SIGCONT)
    await world.cluster.settle()
    return f"{master.folder_name}, followed by {successor.folder_name}"


async def _successor(world: World, shard: int, lost: ClusterNode) -> ClusterNode:
    """Wait until another node says that it has a shard's slot."""
    others = [node for node in world.cluster.nodes if node is not lost]
    found: list[ClusterNode] = []

    async def leads() -> bool:
        for node in others:
            if any(slot_of(shard) in each for each in await node.owned()):
                found.append(node)
                return True
        return False

    await eventually(leads)
    return found[0]


async def _flush_master(world: World, fault: Fault) -> str:
    master = await world.cluster.owner(fault.shard)
    await master.call("FLUSHALL")
    return master.folder_name


async def _move_slot(world: World, fault: Fault) -> str:
    """Move a shard to another master, let it sell there, and move it back."""
    home = await world.cluster.owner(fault.shard)
    others = [node for node in await world.cluster.masters() if node is not home]
    target = others[int(fault.seconds * 1_000) % len(others)]
    rounds = await _move(world, fault.shard, target)
    await asyncio.sleep(fault.seconds)
    rounds += await _move(world, fault.shard, home)
    return f"shard {fault.shard} to {target.folder_name} and back, {rounds} rounds"


async def _add_node(world: World, fault: Fault) -> str:
    """Let a node that nobody named have a shard for a while."""
    home = await world.cluster.owner(fault.shard)
    added = await world.cluster.add()
    rounds = await _move(world, fault.shard, added)
    await asyncio.sleep(fault.seconds)
    rounds += await _move(world, fault.shard, home)
    await world.cluster.remove(added)
    await world.cluster.settle()
    return f"shard {fault.shard} to a new node and back, {rounds} rounds"


async def _move(world: World, shard: int, target: ClusterNode) -> int:
    """Move a slot as an operator's tool does, under traffic; say how often keys had to be looked for."""
    slot, source = slot_of(shard), await world.cluster.owner(shard)
    await target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.node_id)
    await source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.node_id)
    for rounds in range(1, MOVE_ROUNDS_MAX):
        keys = await source.call("CLUSTER", "GETKEYSINSLOT", slot, 100)
        place = ("MIGRATE", "127.0.0.1", target.access.port, "", 0, 5_000, "REPLACE")
        if keys:
            await source.call(*place, "AUTH", PASSWORD, "KEYS", *keys)
        try:
            # The new owner first: else nobody would have the slot for a moment.
            await target.call("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)
            await source.call("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)
        except ResponseError:
            # Somebody has made a key anew at the source.
            continue
        for node in await world.cluster.masters():
            await node.call("CLUSTER", "SETSLOT", slot, "NODE", target.node_id)
        await eventually(lambda: _all_know(world, slot, target))
        return rounds
    raise AssertionError(f"The keys of slot {slot} kept coming back.")


async def _all_know(world: World, slot: int, owner: ClusterNode) -> bool:
    """Say whether every node says the same of a slot."""
    for node in world.cluster.nodes:
        for first, last, leader, *_ in await node.call("CLUSTER", "SLOTS"):
            if first <= slot <= last and leader[2].decode() != owner.node_id:
                return False
    return True


def _service(world: World, fault: Fault) -> Service:
    return next(service for service in world.services if service.name == fault.target)


async def _kill_service(world: World, fault: Fault) -> str:
    service = _service(world, fault)
    service.is_kept_down = True
    service.kill()
    await asyncio.sleep(fault.seconds)
    service.start()
    service.is_kept_down = False
    return ""


async def _pause_service(world: World, fault: Fault) -> str:
    service = _service(world, fault)
    service.send(signal.SIGSTOP)
    await asyncio.sleep(fault.seconds)
    service.send(signal.SIGCONT)
    return ""


async def _kill_postgres(world: World, fault: Fault) -> str:
    world.postgres.kill()
    await asyncio.sleep(fault.seconds)
    await world.postgres.revive_whole()
    return ""


async def _cut_postgres(world: World, fault: Fault) -> str:
    way = world.ways[fault.target]
    way.cut()
    await asyncio.sleep(fault.seconds)
    way.mend()
    return ""


async def _hold_postgres(world: World, fault: Fault) -> str:
    """Deliver late what a service and Postgres tell each other."""
    way = world.ways[fault.target]
    way.freeze()
    await asyncio.sleep(fault.seconds)
    way.thaw()
    return ""


_ACTS: dict[str, Callable[[World, Fault], Awaitable[str]]] = {
    "master-kill": _kill_master,
    "master-pause": _pause_master,
    "master-flush": _flush_master,
    "slot-move": _move_slot,
    "node-added": _add_node,
    "service-kill": _kill_service,
    "service-pause": _pause_service,
    "postgres-kill": _kill_postgres,
    "postgres-cut": _cut_postgres,
    "postgres-held": _hold_postgres,
}
