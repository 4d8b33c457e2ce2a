"""Proof that the simulation sees: with any one safeguard removed, some seed turns red for the right reason."""

import sys

import pytest
from simulation.mutants import MUTANTS, WORLDS
from simulation.world import World, simulate

SEEDS_MAX = 1_000
# How the absence of each safeguard shows: the first word of what is found.
SHOWS: dict[str, set[str]] = {
    "M1": {"answer", "ledger", "order"},
    "M2": {"answer", "ledger", "order"},
    "M3": {"answer", "order"},
    "M4": {"answer", "order"},
    "M5": {"answer"},
    "M6": {"answer", "ledger"},
    "M7": {"answer"},
    "M8": {"model"},
    "M11": {"answer", "gate", "model"},
    "M14": {"fail"},
    "M15": {"bug", "dropped", "liveness"},
    "M16": {"gate", "liveness", "model"},
    "M17": {"oversold"},
    "M18": {"liveness"},
    "M19": {"silence"},
    "M20": {"bug", "silence"},
    "M21": {"audit", "bug", "gate", "model"},
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", MUTANTS)
def test_a_missing_safeguard_is_found(name: str) -> None:
    """A world without the safeguard breaks a promise within a bounded number of seeds."""
    for seed in range(SEEDS_MAX):
        run = simulate(seed, MUTANTS[name], WORLDS.get(name, World))
        shown = {found.partition(":")[0] for found in run.violations}
        if shown & SHOWS[name]:
            sys.stdout.write(f"{name} was found by seed {seed}, the {seed + 1}. that was run\n")
            return
    pytest.fail(f"{name} survived {SEEDS_MAX} seeds")
