"""`ringfence replay FILE`: sells an order history, and audits what that left behind."""

import asyncio
import os
import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click
import stamina
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from allocation.audit import Audit, audit
from allocation.errors import EngineError
from service.engine import open_engine
from service.replay import summary
from service.replay.calling import CallError, Service
from service.replay.carts import Cart, History, read_history
from service.replay.figures import compare_over_http
from service.replay.own_service import Target, own_service
from service.replay.reading import UnreadableFileError
from service.replay.selling import Sales, Shop, each, open_shop
from service.settings import Settings

WORKERS = 64
MONTH_FORMAT = "%Y-%m"
NO_SERVERS = (
    "With --url, name the servers behind that service with RINGFENCE_REDIS_URL and "
    "RINGFENCE_DATABASE_URL: the audit reads them."
)


class _Replayed(Struct, frozen=True):
    sales: Sales
    seconds: float
    audit: Audit


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--month", type=click.DateTime([MONTH_FORMAT]), help="Only one month, as 2010-12.")
@click.option("--url", help="A running service; without it, one is started and removed again.")
@click.option("--key", help="An admin key of that service.")
@click.option(
    "--workers",
    type=click.IntRange(1, 512),
    default=WORKERS,
    show_default=True,
    help="How many carts are sold at a time.",
)
def replay(
    file: Path, month: datetime | None, url: str | None, key: str | None, workers: int
) -> None:
    """Sell the order history in FILE (.csv or .csv.gz, in the format of UCI Online Retail).

    Ends with an audit of ledger, gate and HTTP figures; exit status 0 means that it holds. With
    --url, the audit reads the servers of RINGFENCE_REDIS_URL and RINGFENCE_DATABASE_URL.
    """
    console = Console(highlight=False)
    span = month.strftime(MONTH_FORMAT) if month is not None else "all"
    try:
        history = read_history(file, None if month is None else span)
    except UnreadableFileError as error:
        raise click.ClickException(str(error)) from None
    console.print(f"{history.rows:,} rows read, {len(history.carts):,} carts and returns")
    summary.print_rule(console)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Repeats are counted and told in the end; a log line each would tear the progress bar.
    stamina.instrumentation.set_on_retry_hooks(())
    with _target(url, key) as target:
        replayed = _run(console, target, history, span, workers)
    summary.print_rows(console, history, replayed.sales)
    summary.print_sales(console, history, replayed.sales, replayed.seconds)
    summary.print_audit(console, replayed.audit)
    if not (replayed.audit.holds and summary.rows_balance(history, replayed.sales)):
        raise SystemExit(1)


@contextmanager
def _target(url: str | None, key: str | None) -> Generator[Target, None, None]:
    if url is None and key is None:
        with own_service() as target:
            yield target
        return
    if url is None or key is None:
        raise click.UsageError("--url and --key belong together.")
    settings = Settings.from_environment(os.environ)
    if settings.redis_url is None or settings.database_url is None:
        raise click.UsageError(NO_SERVERS)
    yield Target(url, key, settings.redis_url, settings.database_url)


def _run(console: Console, target: Target, history: History, span: str, workers: int) -> _Replayed:
    failed: list[str] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_replay(console, target, history, span, workers))
        except* (CallError, EngineError) as failures:
            failed += [str(error) or str(error.__doc__) for error in _leaves(failures)]
    # Raised here, since what is raised inside `except*` would come out as a group again.
    raise click.ClickException(failed[0])


async def _replay(
    console: Console, target: Target, history: History, span: str, workers: int
) -> _Replayed:
    service = Service(target.url, target.key, workers)
    try:
        with _progress(console) as progress:
            await open_shop(service, history, span, workers)
            begun = time.perf_counter()
            sales = await _sell(progress, service, history, workers)
            seconds = time.perf_counter() - begun
            found = await _audit(progress, target)
            await compare_over_http(service, found, workers)
    finally:
        await service.close()
    if service.repeats:
        console.print(f"{service.repeats:,} requests were repeated until the answer was definite")
    return _Replayed(sales, seconds, found)


async def _sell(progress: Progress, service: Service, history: History, workers: int) -> Sales:
    shop, shown = Shop(service), progress.add_task("Selling", total=len(history.carts))

    async def serve(cart: Cart) -> None:
        await shop.serve(cart)
        progress.advance(shown)

    await each(history.carts, workers, serve)
    return shop.sales


async def _audit(progress: Progress, target: Target) -> Audit:
    shown = progress.add_task("Auditing", total=None)
    # The audit only reads: how long anything is kept makes no difference to it.
    async with open_engine(Settings(), target.redis_url, target.database_url) as engine:
        audits = [
            await audit(
                shard.gate,
                shard.ledger,
                lambda read, through: progress.update(shown, completed=read, total=through),
            )
            for shard in engine.shards
        ]
    for other in audits[1:]:
        audits[0].join(other)
    return audits[0]


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=console)


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
