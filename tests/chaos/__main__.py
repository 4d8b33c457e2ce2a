"""`python -m chaos`: run the service under faults, and check what came of it."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import click
import uvloop
from chaos.plan import KINDS
from chaos.processes import World
from chaos.record import FINAL_NAME
from chaos.running import Order, Run, write_description
from chaos.summary import check

from service.embedded.servers import embedded_servers
from service.settings import Settings

OUT = Path(".chaos")
# About an hour on two cores.
LONG_OPERATIONS, LONG_FAULTS, LONG_ROOM = 3_000_000, 420, 10.0


@click.group()
def main() -> None:
    """Three services, a Redis and a PostgreSQL, and everything that can go wrong between them."""


@main.command()
@click.option("--seed", type=int, required=True, help="Draws the plan and every client's wishes.")
@click.option("--operations", type=int, default=3_000, show_default=True, help="How many to begin.")
@click.option("--faults", type=int, default=20, show_default=True, help="How many go wrong.")
@click.option(
    "--only", "kinds", multiple=True, type=click.Choice(list(KINDS)), help="Only these kinds."
)
@click.option(
    "--room", type=float, default=1.0, show_default=True, help="Stretches what may take so long."
)
@click.option("--long", "is_long", is_flag=True, help="An hour of it, with room for a large shop.")
@click.option("--out", type=click.Path(path_type=Path), help="Default: .chaos/SEED.")
def run(  # noqa: PLR0913 - one argument an option
    *,
    seed: int,
    operations: int,
    faults: int,
    kinds: tuple[str, ...],
    room: float,
    is_long: bool,
    out: Path | None,
) -> None:
    """Run one seed and check it; the exit status is 0 only where every checker passes."""
    folder = (out or OUT / str(seed)).absolute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if is_long:
        operations, faults, room = LONG_OPERATIONS, LONG_FAULTS, LONG_ROOM
    order = Order(seed, operations, faults, kinds or tuple(KINDS), room, folder)
    write_description(order)
    data = Path(tempfile.mkdtemp(prefix="ringfence-chaos-"))
    # The servers run under another account than root's.
    data.chmod(0o755)
    try:
        with embedded_servers(Settings(data_dir=data / "servers", demo=False)) as servers:
            world = World(servers)
            try:
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(_play(order, world))
            finally:
                world.end_services()
    finally:
        shutil.rmtree(data, ignore_errors=True)
    sys.exit(report(folder))


@main.command("check")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
def check_again(folder: Path) -> None:
    """Check once more what a run has written down; no server is needed."""
    sys.exit(report(folder))


async def _play(order: Order, world: World) -> None:
    try:
        await Run(order, world).play()
    finally:
        world.close()


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
