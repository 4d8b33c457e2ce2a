"""`python -m cluster_chaos`: run services on a Redis Cluster under faults, and check what came of it."""

import asyncio
import shutil
import sys
from pathlib import Path

import click
import msgspec
import uvloop
from cluster import placed
from cluster_chaos.mutants import MUTANTS
from cluster_chaos.plan import KINDS
from cluster_chaos.record import FINAL_NAME
from cluster_chaos.running import Order, Run
from cluster_chaos.summary import check
from cluster_chaos.world import World

OUT = Path(".chaos")


@click.group()
def main() -> None:
    """Three services, eight shards, six Redis nodes, a PostgreSQL, and everything that can go wrong with them."""


@main.command()
@click.option("--seed", type=int, required=True, help="Draws the plan and every client's wishes.")
@click.option("--operations", type=int, default=4_000, show_default=True, help="At least so many.")
@click.option("--faults", type=int, default=20, show_default=True, help="How many go wrong.")
@click.option(
    "--only", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only these kinds."
)
@click.option(
    "--room", type=float, default=1.0, show_default=True, help="Stretches what may take so long."
)
@click.option("--mutant", type=click.Choice(list(MUTANTS)), help="Do without this safeguard.")
@click.option("--out", type=click.Path(path_type=Path), help="Default: .chaos/cluster-SEED.")
def run(  # noqa: PLR0913 - one argument an option
    *,
    seed: int,
    operations: int,
    faults: int,
    kinds: tuple[str, ...],
    room: float,
    mutant: str | None,
    out: Path | None,
) -> None:
    """Run one seed and check it; the exit status is 0 only where every checker passes."""
    folder = (out or OUT / f"cluster-{seed}").absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    order = Order(seed, operations, faults, kinds or tuple(KINDS), room, mutant or "", folder)
    (folder / "run.json").write_bytes(msgspec.json.encode({"seed": seed, "plan": order.plan}))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_play(order))
    sys.exit(report(folder))


@main.command("check")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def check_again(folder: Path) -> None:
    """Check once more what a run has written down; no server is needed."""
    sys.exit(report(folder))


async def _play(order: Order) -> None:
    with placed() as placement:
        async with World.open(placement) as world:
            await Run(order, world).play()


def report(folder: Path) -> int:
    """Print the summary and what every checker found."""
    if not (folder / FINAL_NAME).exists():
        raise click.ClickException(f"The run in {folder} did not come to its end.")
    found = check(folder)
    click.echo(found.text)
    click.echo(f"Written down in {folder}.")
    return 0 if found.holds else 1


if __name__ == "__main__":
    main()
