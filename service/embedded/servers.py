"""Start what no setting names, watch over it, and leave no process behind."""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from service.embedded.credentials import Credentials, keep_credentials, load_credentials
from service.embedded.errors import StartError
from service.embedded.files import write_whole
from service.embedded.locks import FolderLock
from service.embedded.placement import Placement, place
from service.embedded.postgres_server import PostgresServer
from service.embedded.redis_server import RedisServer
from service.embedded.server import EmbeddedServer
from service.embedded.signals import signals_ignored
from service.settings import Settings

READY_POLL_SECONDS = 0.02
# Long, because Redis and PostgreSQL may have much to read back after a crash.
READY_TIMEOUT_SECONDS = 600.0
WATCH_SECONDS = 0.2
REVIVAL_PAUSE_SECONDS_MAX = 5.0
UP_FILE_NAME = "up.json"

Result = TypeVar("Result")


class EmbeddedServers:
    """The servers of one data folder, for as long as `embedded_servers` is open."""

    def __init__(self, settings: Settings, data_dir: Path) -> None:
        self.settings = settings
        self.data_dir = data_dir
        self.started_at = datetime.now(UTC)
        self.redis: RedisServer | None = None
        self.postgres: PostgresServer | None = None
        self.placement: Placement | None = None

    @property
    def redis_url(self) -> str:
        return self.settings.redis_url or _started(self.redis).url

    @property
    def database_url(self) -> str:
        return self.settings.database_url or _started(self.postgres).url

    @property
    def running(self) -> list[EmbeddedServer]:
        return [server for server in (self.redis, self.postgres) if server is not None]

    def start(self) -> None:
        """Start both servers side by side and wait until they take commands."""
        if self.settings.redis_url is None or self.settings.database_url is None:
            credentials = load_credentials(self.data_dir)
            keep_credentials(self.data_dir, credentials)
            self._choose(credentials)
            for server in self.running:
                server.start()
            self._await_ready()
            keep_credentials(self.data_dir, credentials)
        self.write_up_file()

    async def keep_running(self) -> None:
        """Start a server again, at its old address, whenever it ends by itself."""
        pauses = dict.fromkeys(self.running, WATCH_SECONDS)
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for server in self.running:
                if not server.has_ended():
                    pauses[server] = max(WATCH_SECONDS, pauses[server] * 0.9)
                    continue
                await asyncio.sleep(pauses[server])
                pauses[server] = min(REVIVAL_PAUSE_SECONDS_MAX, pauses[server] * 2)
                self._revive(server)

    def stop(self) -> None:
        """Stop both servers side by side; nothing that was started remains."""
        for server in self.running:
            server.ask_to_stop()
        for server in self.running:
            server.stop()
        (self.data_dir / UP_FILE_NAME).unlink(missing_ok=True)

    def write_up_file(self) -> None:
        """Write which processes run where, without passwords."""
        text = msgspec.json.format(msgspec.json.encode(self._description())).decode()
        write_whole(self.data_dir / UP_FILE_NAME, f"{text}\n")

    def _choose(self, credentials: Credentials) -> None:
        self.placement = place(self.data_dir)
        avoided = {self.settings.port, credentials.redis.port, credentials.postgres.port}
        if self.settings.redis_url is None:
            self.redis = RedisServer(self.placement, credentials.redis, avoided)
        if self.settings.database_url is None:
            self.postgres = PostgresServer(self.placement, credentials.postgres, avoided)

    def _await_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        waiting = self.running
        while waiting := [server for server in waiting if not server.is_ready()]:
            if time.monotonic() > deadline:
                raise StartError(f"{waiting[0].name} gave no answer (log: {waiting[0].log_path}).")
            time.sleep(READY_POLL_SECONDS)

    def _revive(self, server: EmbeddedServer) -> None:
        try:
            if not server.revive():
                return
        except (OSError, StartError) as error:
            _say(f"{server.name} ended and does not start again yet: {error}")
            return
        _say(f"{server.name} ended by itself and was started again.")
        self.write_up_file()

    def _description(self) -> dict[str, Any]:
        description: dict[str, Any] = {
            "pid": os.getpid(),
            "address": f"http://{self.settings.host}:{self.settings.port}",
            "started_at": self.started_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        for server in self.running:
            description[server.folder_name] = {
                "pid": server.process_id,
                "address": server.address,
                "folder": str(server.folder),
                "log": str(server.log_path),
            }
        return description


@contextmanager
def embedded_servers(settings: Settings) -> Generator[EmbeddedServers, None, None]:
    """Run the servers that the settings do not name; call it from the main thread."""
    data_dir = settings.data_dir.absolute()
    servers = EmbeddedServers(settings, data_dir)
    with _data_folder(data_dir):
        try:
            _explained(data_dir, servers.start)
            yield servers
        finally:
            with signals_ignored():
                servers.stop()


@contextmanager
def _data_folder(data_dir: Path) -> Generator[None, None, None]:
    lock = FolderLock(data_dir / "lock")
    _explained(data_dir, lambda: data_dir.mkdir(mode=0o755, parents=True, exist_ok=True))
    if not _explained(data_dir, lock.try_acquire):
        raise StartError(
            f"Ringfence already runs on the data folder {data_dir}; stop it, "
            f"or name another folder with RINGFENCE_DATA_DIR."
        )
    try:
        yield
    finally:
        lock.close()


def _explained(data_dir: Path, step: Callable[[], Result]) -> Result:
    try:
        return step()
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise StartError(
            f"The data folder {data_dir} cannot be used: {error.strerror}{place}."
        ) from None


def _started(server: Result | None) -> Result:
    if server is None:
        raise AssertionError("Bug: a server was asked for its address before its start.")
    return server


def _say(text: str) -> None:
    sys.stderr.write(f"ringfence: {text}\n")
