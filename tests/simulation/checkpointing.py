"""Processes that keep checkpoints now and then, and whoever damages some of them."""

import asyncio
from random import Random
from typing import TYPE_CHECKING

from allocation.ports import Part

if TYPE_CHECKING:
    from simulation.world import World

KEEPING_SECONDS, WRITTEN_SECONDS = 3.0, 0.3


class Keeper:
    """Lets processes keep checkpoints at drawn times, in most runs."""

    def __init__(self, world: "World", random: Random) -> None:
        self._world, self._random = world, random

    async def keep(self) -> None:
        """Let a few checkpoints be kept, and damage some of them."""
        times = self._random.choice((0, 1, 2, 3))
        await asyncio.gather(*(self._keep_one() for _ in range(times)))

    async def _keep_one(self) -> None:
        await asyncio.sleep(KEEPING_SECONDS * self._random.random())
        self._random.choice(self._world.processes).keep_checkpoint()
        if self._random.random() < 0.4:
            await asyncio.sleep(WRITTEN_SECONDS * self._random.random())
            self._damage()

    def _damage(self) -> None:
        kept = self._world.postgres.kept
        checkpoint = kept[max(kept)] if kept else None
        if checkpoint is None or not checkpoint.parts:
            return
        place = self._random.randrange(len(checkpoint.parts))
        part = checkpoint.parts[place]
        match self._random.choice(("a byte", "a part", "another history")):
            case "a byte":
                checkpoint.parts[place] = Part(
                    part.key, part.body[:-1] + bytes([part.body[-1] ^ 1])
                )
            case "a part":
                del checkpoint.parts[place]
            case _:
                checkpoint.last_hash = "another"
        self._world.note("a checkpoint is damaged")
