"""A simulated service process: a real pipeline in a lane of its own, which can crash, sleep and start again."""

import asyncio
from collections.abc import Callable

from simulation.gate import SimulatedGate
from simulation.history import FAIL, INFO, OK
from simulation.ledger import SimulatedLedger
from simulation.loop import Lane, SimulationLoop
from simulation.network import Note

from allocation.checkpoints import write_checkpoint
from allocation.commands import Command
from allocation.errors import Diverged, EngineError, LedgerRewound, NothingDone, Unsuitable
from allocation.pipeline import Limits, Pipeline
from allocation.ports import Decision
from allocation.rebuild import fold

RESTART_SECONDS = 0.1
Reply = Callable[[str, str, Decision | None], None]
OnDurable = Callable[[int, int, list[bytes]], None]


class Process:
    """One service process. A crash loses everything it has in memory, at whatever await it stands."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        name: str,
        loop: SimulationLoop,
        gate: SimulatedGate,
        ledger: SimulatedLedger,
        limits: Limits,
        pipeline_type: type[Pipeline],
        note: Note,
        on_durable: OnDurable,
    ) -> None:
        self.name, self.gate, self.ledger = name, gate, ledger
        self.pipeline: Pipeline | None = None
        # What ended a loop of the pipeline, though nothing should.
        self.bugs: list[BaseException] = []
        # Faults that end a process, or keep it from starting, where the scenario makes them.
        self.expected: tuple[type[Exception], ...] = ()
        self.closed_by: Exception | None = None
        self.restarts = 0
        self._loop, self._limits, self._type = loop, limits, pipeline_type
        self._note, self._on_durable = note, on_durable
        self._lane = Lane(name)
        self._replies: list[Reply] = []

    @property
    def is_up(self) -> bool:
        """Whether it runs, or would if it were not paused."""
        return not self._lane.dead

    @property
    def is_serving(self) -> bool:
        """Whether it may decide and has nothing left to do."""
        pipeline = self.pipeline
        return (
            pipeline is not None
            and pipeline.verified is not None
            and pipeline.ledger_lag_seconds == 0
            and not pipeline.waiting
        )

    def start(self) -> None:
        """Begin from nothing, in a new lane."""
        self._lane = Lane(self.name)
        self.pipeline = self.closed_by = None
        self._loop.start(self._lane, self._run(), self.name)

    def crash(self) -> None:
        """Let everything of it vanish; whoever waits for an answer sees the connection close."""
        if self._lane.dead:
            return
        self._note(self.name, "crashes")
        self._loop.kill(self._lane)
        self.pipeline = None
        self.ledger.close()
        replies, self._replies = self._replies, []
        for reply in replies:
            reply(INFO, "connection lost", None)

    def _restart(self) -> None:
        self.crash()
        self.start()

    def pause(self) -> None:
        """Let it run no further for now."""
        self._note(self.name, "sleeps")
        self._loop.pause(self._lane)

    def resume(self) -> None:
        """Let it go on, unaware."""
        if self._lane.paused:
            self._note(self.name, "wakes")
            self._loop.resume(self._lane)

    def accept(self, command: Command, reply: Reply) -> asyncio.Task[None] | None:
        """Take a request in, as it comes from the network; give the work on it."""
        if self._lane.dead:
            reply(FAIL, "refused connection", None)
            return None
        self._replies.append(reply)
        return self._loop.start(self._lane, self._serve(command, reply), f"{self.name} serves")

    def keep_checkpoint(self) -> None:
        """Write a checkpoint of what the ledger has by now, beside everything else."""
        if not self._lane.dead:
            self._loop.start(self._lane, self._keep_checkpoint(), f"{self.name} keeps a checkpoint")

    @property
    def is_rewound(self) -> bool:
        """Whether it is closed since the ledger has lost what was answered."""
        pipeline = self.pipeline
        closed_by = self.closed_by if pipeline is None else pipeline.closed_by
        return isinstance(closed_by, LedgerRewound)

    async def stop(self) -> None:
        """End in good order: answer what can be answered, then go."""
        pipeline = self.pipeline
        if pipeline is None or self._lane.dead or self._lane.paused:
            return
        self._note(self.name, "stops")
        lane = self._lane
        stopping = self._loop.start(lane, pipeline.stop(), f"{self.name} stops")
        while not (stopping.done() or lane.dead):  # noqa: ASYNC110 - it may vanish meanwhile
            await asyncio.sleep(RESTART_SECONDS)
        if lane is self._lane:
            self.crash()

    async def _run(self) -> None:
        while self.pipeline is None:
            pipeline = self._type(
                self.gate,
                self.ledger,
                limits=self._limits,
                on_durable=self._on_durable,
                now=self._loop.time,
            )
            try:
                await pipeline.start()
            except (EngineError, AssertionError) as fault:
                self._note(self.name, "cannot start", type(fault).__name__)
                self.closed_by = fault
                grave = isinstance(fault, (Diverged, Unsuitable, AssertionError))
                if grave and not isinstance(fault, self.expected):
                    self.bugs.append(fault)
                await asyncio.sleep(RESTART_SECONDS)
            else:
                self.pipeline = pipeline
        await asyncio.wait([self.pipeline.broken])
        fault = self.pipeline.broken.exception()
        self._note(self.name, "breaks", repr(fault))
        if isinstance(fault, self.expected):
            self.restarts += 1
            self._loop.call_later(
                RESTART_SECONDS, self._restart, context=self.ledger.server.context
            )
            return
        self.bugs.append(fault or AssertionError("broken without a fault"))

    async def _keep_checkpoint(self) -> None:
        ledger = type(self.ledger)(f"{self.name} keeper", self.ledger.server)
        try:
            head = await ledger.head()
            if head.last_sequence:
                state = await fold(ledger, head.last_sequence)
                await write_checkpoint(ledger, state, head.last_sequence, head.last_hash)
        except EngineError as fault:
            self._note(self.name, "keeps no checkpoint", type(fault).__name__)

    async def _serve(self, command: Command, reply: Reply) -> None:
        verdict, reason, decision = INFO, "", None
        try:
            if self.pipeline is None:
                raise NothingDone  # noqa: TRY301 - as a service answers that is not ready
            decision = await self.pipeline.submit(command)
            verdict = OK
        except NothingDone as fault:
            verdict, reason = FAIL, type(fault).__name__
        except EngineError as fault:
            reason = type(fault).__name__
        if reply in self._replies:
            self._replies.remove(reply)
            reply(verdict, reason, decision)
