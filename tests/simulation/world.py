"""One run: servers, processes and clients built from one seed, a phase of faults, then healing and convergence."""

import asyncio
import hashlib
import logging
import traceback
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

from simulation.checkpointing import Keeper
from simulation.checks import check_all
from simulation.clients import Clients
from simulation.gate import RedisServer, SimulatedGate
from simulation.history import Operation
from simulation.ledger import SimulatedLedger, SimulatedPostgres
from simulation.loop import SimulationLoop, StuckError
from simulation.nemesis import Nemesis
from simulation.processes import Process

from allocation.pipeline import Limits, Pipeline
from allocation.ports import Batch, Identity

# Generous for what happens in it; what takes longer does not happen at all.
FAULTS_SECONDS_MAX, HEALED_SECONDS_MAX = 300.0, 60.0
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Build:
    """The parts a world is built of. A mutant replaces one of them."""

    redis: type[RedisServer] = RedisServer
    postgres: type[SimulatedPostgres] = SimulatedPostgres
    gate: type[SimulatedGate] = SimulatedGate
    ledger: type[SimulatedLedger] = SimulatedLedger
    pipeline: type[Pipeline] = Pipeline


@dataclass
class Run:
    """What came of one seed."""

    seed: int
    violations: list[str]
    trace: list[str]
    digest: str
    verdicts: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    take_overs: int = 0
    seconds: float = 0.0
    ways: Counter[str] = field(default_factory=Counter)


class World:
    """Everything there is in one run."""

    nemesis_type: type[Nemesis] = Nemesis

    def __init__(self, seed: int, build: Build) -> None:
        self.seed, self._build = seed, build
        self.trace: list[str] = []
        self.loop = SimulationLoop(self.random("order"))
        self.postgres = build.postgres(self.loop, self.random("postgres"), self.note)
        self.servers = 0
        self.redis = self.new_redis()
        # What the gate decided under the ledger's epoch and no fault has taken: sequence and hash.
        self.decided: dict[int, str] = {}
        plan = self.random("plan")
        limits = Limits(
            batch_lines_max=plan.choice((2, 256)),
            early_batch_min=plan.choice((1, 2, 32)),
            ledger_lag_seconds_max=plan.choice((0.25, 10.0)),
            answer_seconds_max=plan.choice((1.0, 5.0)),
        )
        self.processes = [self._process(number, limits) for number in range(plan.randint(2, 4))]
        self.clients = Clients(
            self.loop,
            self.random("clients"),
            self.processes,
            self.note,
            lambda: self.postgres.durable_ever,
        )
        # In which ways gates were taken over, and which load each process is at.
        self.ways: Counter[str] = Counter()
        self._loads: dict[str, str] = {}
        self._published: list[str] = []

    @property
    def operations(self) -> list[Operation]:
        """Everything that clients have asked for."""
        return self.clients.operations

    def random(self, purpose: str) -> Random:
        """Give a stream of random numbers that no other purpose uses up."""
        return Random(f"{self.seed} {purpose}")  # noqa: S311 - repeatable, not secret

    def note(self, *what: Any) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.loop.time():9.4f} " + " ".join(map(_brief, what)))

    def new_redis(self) -> RedisServer:
        """Make a server that nobody has seen before."""
        self.servers += 1
        name = f"redis{self.servers}"
        redis = self._build.redis(
            name, self.loop, self.random(name), self.note, self.new_identity()
        )
        redis.on_decided = self._note_decided
        return redis

    def new_identity(self, run_id: str = "") -> Identity:
        """Give a server a new history, and a new run id unless it goes on running."""
        self.servers += 1
        return Identity(run_id or f"run{self.servers}", f"history{self.servers}")

    def run(self) -> Run:
        """Do everything, and say what was wrong."""
        # What the engine would tell an operator of each fault takes longer than the run.
        logging.disable(logging.CRITICAL)
        try:
            violations = self.loop.run(self._live(), FAULTS_SECONDS_MAX + HEALED_SECONDS_MAX)
        except StuckError as stuck:
            violations = [f"liveness: {stuck}", *self._bugs()]
        except Exception as fault:  # noqa: BLE001 - whatever breaks a callback is a finding like any other
            violations = [f"bug: {fault!r}", *traceback.format_tb(fault.__traceback__)]
        finally:
            logging.disable(logging.NOTSET)
        self.note("random", self.loop._random.random(), "steps", self.loop.steps)
        digest = hashlib.sha256("\n".join(self.trace).encode()).hexdigest()
        verdicts: dict[str, int] = {}
        for operation in self.operations:
            for attempt in operation.attempts:
                verdicts[attempt.verdict] = verdicts.get(attempt.verdict, 0) + 1
        return Run(
            self.seed,
            violations,
            self.trace,
            digest,
            verdicts,
            self.nemesis.done,
            self.postgres.head.epoch,
            self.loop.time(),
            self.ways,
        )

    async def _live(self) -> list[str]:
        plan = self.random("scenario")
        self.nemesis = self.nemesis_type(self, plan)
        for process in self.processes:
            process.start()
        faults = asyncio.create_task(self.nemesis.rage())
        keeping = asyncio.create_task(Keeper(self, self.random("checkpoints")).keep())
        await self.clients.set_up(plan.randint(2, 6))
        shoppers, each = plan.randint(2, 5), plan.randint(5, 10)
        pause_seconds = plan.choice((0.1, 0.3, 0.6))
        shopping = [
            asyncio.create_task(self.clients.shop(f"c{number}", each, pause_seconds))
            for number in range(shoppers)
        ]
        await asyncio.gather(faults, keeping, *shopping)
        self.note("everything heals")
        self.nemesis.heal()
        try:
            async with asyncio.timeout(HEALED_SECONDS_MAX):
                await self.settle()
        except TimeoutError:
            return [
                f"liveness: not settled {HEALED_SECONDS_MAX:.0f} s after the last fault",
                *self._bugs(),
            ]
        for process in self.processes:
            process.crash()
        return [*self._bugs(), *self._published, *await self.check()]

    async def settle(self) -> None:
        """Wait until everything that was asked for is answered, and everybody agrees."""
        await self.clients.resolve()
        await self.converge()

    async def check(self) -> list[str]:
        """Give everything that is wrong."""
        return await check_all(self)

    def _bugs(self) -> list[str]:
        return [
            f"bug: {process.name}: {bug!r}" for process in self.processes for bug in process.bugs
        ]

    async def converge(self) -> None:
        """Wait until every process serves, and the gate stands where the ledger does."""
        while True:
            store, head = self.redis.store, self.postgres.head
            serving = all(process.is_serving for process in self.processes)
            if serving and (store.sequence, store.hash) == (head.last_sequence, head.last_hash):
                return
            await asyncio.sleep(LOOK_SECONDS)

    def new_operator(self) -> tuple[SimulatedGate, SimulatedLedger]:
        """Give an operator a way to gate and ledger."""
        name = "operator"
        return self._build.gate(name, self.redis), self._build.ledger(name, self.postgres)

    def _process(self, number: int, limits: Limits) -> Process:
        name = f"p{number}"

        def publish(last: int, first: int, bodies: list[bytes]) -> None:
            rows = self.postgres.rows
            if self.postgres.timeline > 1:
                # What was told in time may be lost by now.
                return
            if any(sequence not in rows for sequence in range(1, last + 1)):
                self._published.append(f"publish: {name} told of {last} before it was durable")
            for sequence, body in enumerate(bodies, first):
                if rows.get(sequence, ("", b""))[1] != body:
                    self._published.append(f"publish: {name} told of another entry {sequence}")

        gate = self._build.gate(name, self.redis)
        ledger = self._build.ledger(name, self.postgres)
        gate.on_step = partial(self._note_step, ledger)
        return Process(
            name,
            self.loop,
            gate,
            ledger,
            limits,
            self._build.pipeline,
            self.note,
            publish,
        )

    def _note_step(self, ledger: SimulatedLedger, step: str) -> None:
        if step == "arm":
            self.ways[step] += 1
        elif step in {"begin", "close"}:
            self._loads[ledger.caller] = "rebuild" if step == "begin" else "tail"
            ledger.parts_read = 0
        elif step == "open":
            way = self._loads.pop(ledger.caller)
            self.ways[f"{way} from a checkpoint" if ledger.parts_read else way] += 1

    def _note_decided(self, server: RedisServer, epoch: int, sequence: int, last_hash: str) -> None:
        # Whoever still holds to an abandoned primary may rightfully take over there.
        united = all(process.gate.server is self.redis for process in self.processes)
        if server is self.redis and united and epoch == self.postgres.head.epoch:
            self.decided[sequence] = last_hash


def _brief(value: Any) -> str:
    if isinstance(value, Batch):
        outcomes = ",".join(decision.outcome.name for decision in value.decisions)
        head = value.head
        return f"{head.status.name} {head.first_sequence}..{head.last_sequence} {head.hash_after[:6]} {outcomes}"
    if isinstance(value, list):
        return f"{len(value)} entries"
    return value if isinstance(value, str) else repr(value)


def simulate(seed: int, build: Build | None = None, world_type: type[World] = World) -> Run:
    """Run one seed."""
    return world_type(seed, build or Build()).run()
