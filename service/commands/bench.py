"""`ringfence bench`: measures speed and size, from a checkout of the project."""

import os
import sys
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure speed and size; `ringfence bench --help` lists the questions."""
    if not (ROOT / "benchmarks" / "__main__.py").is_file():
        raise click.ClickException("The benchmarks come with a checkout of the project only.")
    # In place of this process, so that every signal reaches the one that stops the servers.
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", "benchmarks", *arguments])  # noqa: S606
