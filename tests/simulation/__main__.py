"""Runs one seed with its trace, or many: PYTHONPATH=tests python -m simulation SEED [--count N] [--mutant M1]."""

import argparse
import sys

from simulation.mutants import MUTANTS, WORLDS
from simulation.promotion import PromotionWorld
from simulation.seeds import sweep
from simulation.world import Run, World, simulate


def main() -> int:
    """Run what is asked for; give 1 where something was wrong."""
    parser = argparse.ArgumentParser(prog="simulation")
    parser.add_argument("seed", type=int)
    parser.add_argument("--count", type=int, help="so many seeds from this one on, without traces")
    parser.add_argument("--digest", action="store_true", help="the digest of the trace alone")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="with one safeguard removed")
    parser.add_argument(
        "--promotion", action="store_true", help="promote a standby of Postgres that lost commits"
    )
    arguments = parser.parse_args()
    world_type = PromotionWorld if arguments.promotion else WORLDS.get(arguments.mutant, World)
    build = MUTANTS.get(arguments.mutant)
    seeds = range(arguments.seed, arguments.seed + (arguments.count or 1))
    if arguments.digest:
        _say(f"{seed} {simulate(seed, build, world_type).digest}" for seed in seeds)
        return 0
    if arguments.count:
        came = sweep(seeds, build, world_type)
        _say(came.lines())
        return 1 if came.wrong else 0
    run = simulate(arguments.seed, build, world_type)
    _say([*run.trace, "", *_told(run)])
    return 1 if run.violations else 0


def _told(run: Run) -> list[str]:
    return [
        f"seed {run.seed}: trace {run.digest}, {run.seconds:.1f} s of virtual time",
        f"requests {run.verdicts}, take-overs {run.take_overs}, faults {run.faults}",
        *(f"WRONG: {violation}" for violation in run.violations),
    ]


def _say(lines: object) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
