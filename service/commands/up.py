"""`ringfence up`: everything in one process, with servers of its own where none is named."""

import asyncio
import os
import secrets
import signal
import sys
from contextlib import suppress
from pathlib import Path

import click
import uvloop

from allocation.errors import Closed, LedgerUnavailable
from service.commands.closed import closed_shards
from service.embedded.errors import StartError
from service.embedded.files import write_whole
from service.embedded.ports import require_free
from service.embedded.processes import stop_with_parent
from service.embedded.servers import EmbeddedServers, embedded_servers
from service.embedded.watcher import Watcher
from service.main import serve
from service.settings import Settings
from service.stopping import stop_wanted

KEY_FILE_NAME = "development_key"
REOPENED_LOOK_SECONDS = 1.0


@click.command()
def up() -> None:
    """Serve with an embedded Redis and PostgreSQL; Ctrl-C stops everything."""
    settings = Settings.from_environment(os.environ)
    _stop_on_signals()
    if settings.exit_with_parent:
        stop_with_parent()
    require_free(settings.host, settings.port)
    try:
        with embedded_servers(settings) as servers:
            _run(settings, servers)
    except KeyboardInterrupt:
        return


def _run(settings: Settings, servers: EmbeddedServers) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, servers))


async def _serve(settings: Settings, servers: EmbeddedServers) -> None:
    watcher = Watcher(servers.redis_url, servers.database_url, servers.data_dir)
    beside = [asyncio.create_task(servers.keep_running())]
    if settings.verify_seconds > 0:
        beside.append(asyncio.create_task(watcher.keep_running()))
    try:
        await _serve_unless_closed(settings, servers)
    finally:
        for task in beside:
            task.cancel()
        watcher.stop()


async def _serve_unless_closed(settings: Settings, servers: EmbeddedServers) -> None:
    while True:
        try:
            await serve(
                settings,
                redis_url=servers.redis_url,
                database_url=servers.database_url,
                development_key=_development_key(settings, servers.data_dir),
                demo=settings.demo,
            )
        except Closed as closed:
            # Without the servers nobody could look at the ledger, mend it, and open the shard again.
            stopping = stop_wanted()
            sys.stderr.write(f"ringfence: {closed}\n")
            if not await _is_reopened(servers.database_url, stopping):
                return
        else:
            return


async def _is_reopened(database_url: str, stopping: asyncio.Event) -> bool:
    """Wait until the shard is open again, or until this process is told to stop."""
    while not stopping.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), REOPENED_LOOK_SECONDS)
        with suppress(LedgerUnavailable):
            if not await closed_shards(database_url):
                return not stopping.is_set()
    return False


def _development_key(settings: Settings, data_dir: Path) -> str:
    if settings.dev_key is not None:
        return settings.dev_key
    path = data_dir / KEY_FILE_NAME
    try:
        if path.exists():
            return path.read_text(encoding="ascii").strip()
        key = f"dev_{secrets.token_urlsafe(24)}"
        write_whole(path, f"{key}\n", mode=0o600)
    except (OSError, UnicodeDecodeError):
        raise StartError(f"The file {path} cannot be read or written.") from None
    return key


def _stop_on_signals() -> None:
    # Until `serve` takes these over, they unwind the start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A closed terminal is a wish to stop, unless the caller said otherwise (nohup).
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda _number, _frame: os.kill(os.getpid(), signal.SIGTERM))
