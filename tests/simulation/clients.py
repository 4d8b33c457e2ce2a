"""Simulated clients: they send commands under keys, repeat them when they do not know, and remember all of it."""

import asyncio
from collections.abc import Callable
from random import Random

from simulation.history import INFO, OK, Attempt, Operation
from simulation.loop import SimulationLoop
from simulation.network import Note
from simulation.processes import Process

from allocation.commands import (
    Command,
    ConfigureChannel,
    ConfigureLocation,
    ConfigureSku,
    Confirm,
    Move,
    MovedLine,
    Movement,
    Release,
    Reserve,
    Wanted,
)
from allocation.ports import Decision

SKUS = ("MUG", "CUP")
CHANNELS = ("web", "pos")
CATALOGUE: tuple[Command, ...] = (
    ConfigureLocation("LON", ""),
    *(ConfigureChannel(code, "", ("LON",)) for code in CHANNELS),
    *(ConfigureSku(sku, ()) for sku in SKUS),
)


def moved(key: str, sku: str, units: int) -> Move:
    """Let units arrive, or go."""
    kind = Movement.RECEIPT if units > 0 else Movement.ADJUSTMENT
    return Move(key, "", int(kind), 0, "", (MovedLine(sku, "LON", units),))


class Clients:
    """Everybody who asks for something."""

    def __init__(
        self,
        loop: SimulationLoop,
        random: Random,
        processes: list[Process],
        note: Note,
        durable_sequence: Callable[[], int],
    ) -> None:
        self.operations: list[Operation] = []
        self.way_seconds = 0.001
        self.reply_lost = 0.0
        # After that long a client asks again; some are gone long before the answer comes.
        self.patience_seconds = random.choice((0.15, 0.6, 7.0))
        self._loop, self._random, self._processes, self._note = loop, random, processes, note
        self._durable_sequence = durable_sequence

    async def set_up(self, units: int) -> None:
        """Make the catalogue and fill the shelves; go on only when that is done."""
        opening = [moved(f"opening {sku}", sku, units) for sku in SKUS]
        for command in (*CATALOGUE, *opening):
            await self.until_ok(self._operation("owner", command))

    async def shop(self, name: str, operations: int, pause_seconds: float) -> None:
        """Do some operations one after the other, and leave some of them unfinished."""
        held: list[str] = []
        mine: list[Command] = []
        for number in range(operations):
            await asyncio.sleep(self._random.random() * pause_seconds)
            command = self._next_command(f"{name}-{number}", held, mine)
            mine.append(command)
            operation = self._operation(name, command)
            await self._insist(operation)
            if isinstance(command, Reserve) and operation.decision is not None:
                held.append(command.reservation_id)

    async def resolve(self) -> None:
        """Repeat whatever is not definite until it is."""
        self.patience_seconds = 7.0
        for operation in list(self.operations):
            if not operation.is_definite:
                await self.until_ok(operation)

    async def ask_each(self, command: Command) -> list[str]:
        """Ask every process for one command, and give the verdicts."""
        operation = self._operation("asker", command)
        for process in self._processes:
            await self._attempt(operation, process)
        return [attempt.verdict for attempt in operation.attempts]

    async def until_ok(self, operation: Operation) -> None:
        """Repeat an operation until it has an answer."""
        while operation.decision is None:
            await self._attempt(operation)
            if operation.decision is None:
                await asyncio.sleep(0.05 * min(len(operation.attempts), 10))

    def _operation(self, client: str, command: Command) -> Operation:
        operation = Operation(len(self.operations), client, command)
        self.operations.append(operation)
        return operation

    async def _insist(self, operation: Operation) -> None:
        """Repeat a few times; at times leave it at a refusal, or at not knowing."""
        while operation.decision is None:
            await self._attempt(operation)
            if self._random.random() < 0.15:
                return
            if operation.decision is None:
                pause_seconds = 0.2 * min(len(operation.attempts), 5)
                await asyncio.sleep(self._random.random() * pause_seconds)

    def _next_command(self, key: str, held: list[str], mine: list[Command]) -> Command:
        draw = self._random.random
        if mine and draw() < 0.12:
            return self._random.choice(mine)
        luck = draw()
        if held and luck < 0.3:
            return Confirm(self._random.choice(held), key)
        if held and luck < 0.5:
            return Release(self._random.choice(held))
        sku = self._random.choice(SKUS)
        if luck > 0.92:
            return moved(key, sku, self._random.choice((1, 2, -1)))
        ttl_ms = self._random.choice((300, 2_000, 900_000))
        channel = self._random.choice(CHANNELS)
        wanted = (Wanted(sku, self._random.randint(1, 2)),)
        if draw() < 0.2:
            wanted = tuple(Wanted(each, 1) for each in SKUS)
        return Reserve(key, "", channel, ttl_ms, partial=False, replaces="", lines=wanted)

    async def _attempt(self, operation: Operation, process: Process | None = None) -> None:
        process = process or self._random.choice(self._processes)
        attempt = Attempt(process.name, self._loop.time())
        operation.attempts.append(attempt)
        label = f"#{operation.number} {type(operation.command).__name__}"
        self._note(operation.client, process.name, label)
        arrived: asyncio.Future[None] = self._loop.create_future()

        def reply(verdict: str, reason: str, decision: Decision | None) -> None:
            if arrived.done():
                return
            if verdict == OK and self._random.random() < self.reply_lost:
                verdict, reason, decision = INFO, "reply lost", None
            attempt.verdict, attempt.reason = verdict, reason
            operation.decision = decision
            operation.durable_at_answer = self._durable_sequence()
            arrived.set_result(None)

        await asyncio.sleep(self._way())
        serving = process.accept(operation.command, reply)
        try:
            async with asyncio.timeout(self.patience_seconds):
                await arrived
        except TimeoutError:
            attempt.verdict, attempt.reason = INFO, "no answer"
            if serving is not None and self._random.random() < 0.5:
                # The service notices that its caller has gone.
                serving.cancel()
        await asyncio.sleep(self._way())
        attempt.ended_at = self._loop.time()
        told = operation.decision.outcome.name if operation.decision else attempt.reason
        self._note(operation.client, process.name, label, attempt.verdict, told)

    def _way(self) -> float:
        return self._random.random() * self.way_seconds
