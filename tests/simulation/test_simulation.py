"""Thousands of runs of the engine, each with its own faults: none may break what the service promises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulation.mutants import MUTANTS, WORLDS
from simulation.promotion import PromotionWorld
from simulation.seeds import FAILED_SEEDS, sweep
from simulation.world import World, simulate

TESTS = Path(__file__).parents[1]
SEEDS, PROMOTION_SEEDS = 2_000, 300
FIRST_SEED = int(os.environ.get("RINGFENCE_SIMULATION_FIRST_SEED", "0"))
JOBS = min(4, os.cpu_count() or 1)


def simulation(*arguments: str, hash_seed: str = "random") -> subprocess.Popen[str]:
    """Start the command that runs seeds."""
    environment = os.environ | {"PYTHONPATH": str(TESTS), "PYTHONHASHSEED": hash_seed}
    return subprocess.Popen(
        [sys.executable, "-m", "simulation", *arguments],
        env=environment,
        cwd=TESTS.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def outputs(running: list[subprocess.Popen[str]]) -> list[str]:
    """Wait for commands and give what they said; none outlives the wait."""
    try:
        return [process.communicate()[0] for process in running]
    finally:
        for process in running:
            process.kill()


@pytest.mark.parametrize("seed", FAILED_SEEDS)
def test_a_seed_that_ever_failed_holds(seed: int) -> None:
    """What was wrong once is not wrong again, and the seed would still show it."""
    mutant = FAILED_SEEDS[seed]
    world_type = WORLDS.get(mutant, World)
    assert simulate(seed, world_type=world_type).violations == []
    assert simulate(seed, MUTANTS[mutant], world_type).violations != []


@pytest.mark.timeout(600)
def test_no_seed_breaks_a_promise() -> None:
    """Nothing is oversold, lost or done twice, and everything is answered once the faults end."""
    each = SEEDS // JOBS
    running = [
        simulation(str(FIRST_SEED + job * each), "--count", str(each)) for job in range(JOBS)
    ]
    said = outputs(running)
    sys.stdout.write("".join(said))
    assert [process.returncode for process in running] == [0] * JOBS, "".join(said)


@pytest.mark.timeout(600)
def test_a_ledger_that_loses_its_end_is_healed_or_closed() -> None:
    """A standby without the last commits: the journal gives them back, or nobody answers any more."""
    came = sweep(range(FIRST_SEED, FIRST_SEED + PROMOTION_SEEDS), world_type=PromotionWorld)
    sys.stdout.write("".join(f"{line}\n" for line in came.lines()))
    assert came.wrong == [], came.lines()
    endings = ("ledger whole", "ledger healed", "ledger closed", "stale process")
    assert min(came.ways[ending] for ending in endings) > 20


def test_a_seed_gives_the_same_trace_again() -> None:
    """The same seed gives the same trace, byte for byte; another seed gives another."""
    first, again, other = simulate(7), simulate(7), simulate(8)
    assert first.trace == again.trace
    assert first.digest == again.digest
    assert first.digest != other.digest


def test_the_order_of_hashes_does_not_matter() -> None:
    """Processes that hash strings differently give the same traces."""
    running = [simulation("20", "--count", "10", "--digest", hash_seed=seed) for seed in "12"]
    first, second = outputs(running)
    assert len(first.splitlines()) == 10
    assert first == second


def test_runs_meet_what_they_are_made_for() -> None:
    """Few seeds have refusals, unknown outcomes, take-overs and every fault: nothing passes by sleeping."""
    came = sweep(range(150))
    assert came.wrong == []
    assert came.verdicts["ok"] > 20 * came.seeds
    assert came.verdicts["fail"] > came.seeds
    assert came.verdicts["info"] > came.seeds
    assert came.take_overs > 2 * came.seeds
    assert len(came.faults) == 18
    ways = ("arm", "tail", "rebuild", "rebuild from a checkpoint")
    assert min(came.ways[way] for way in ways) > 20
