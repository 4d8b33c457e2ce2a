"""The real processes of a run: three services, the stores, and a proxy on each way between them."""

import asyncio
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from chaos.clocks import ClockedRedis, give_clock
from chaos.plan import SERVICES
from chaos.proxy import GATE_MARKS, LEDGER_MARKS, Link
from chaos.replicas import RedisPair
from chaos.trace import Trace
from e2e.running import free_port, processes_in
from e2e.serving import SERVE

from service.embedded.errors import StartError
from service.embedded.postgres_server import PostgresServer
from service.embedded.server import EmbeddedServer
from service.embedded.servers import EmbeddedServers

LOOK_SECONDS = 0.05
# As long as an operator's supervisor waits before it starts again what has ended by itself.
REVIVAL_SECONDS = 0.3
# The status of a start that could not be.
FAILED = 1
STOP_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None).prctl


def _end_with_parent() -> None:
    """Let no service outlive the run, not even a stopped one."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Service:
    """One `ringfence serve`, at one port through all its lives."""

    def __init__(
        self,
        name: str,
        redis_url: str,
        database_url: str,
        log_path: Path,
        command: Sequence[str] = SERVE,
    ) -> None:
        self.name, self.port, self.log_path = name, free_port(), log_path
        self._command = command
        kept = {key: text for key, text in os.environ.items() if not key.startswith("RINGFENCE_")}
        self._environment = kept | {
            "RINGFENCE_REDIS_URL": redis_url,
            "RINGFENCE_DATABASE_URL": database_url,
            "RINGFENCE_PORT": str(self.port),
        }
        self._process: subprocess.Popen[bytes] | None = None
        # While a fault keeps it down, nobody starts it again.
        self.is_kept_down = False
        self.ended_by_itself: list[dict[str, float]] = []
        # With which status it ended whenever it was asked to.
        self.exit_statuses: list[int] = []
        self.starts: list[float] = []

    @property
    def is_down(self) -> bool:
        return self._process is None

    def start(self) -> None:
        self.starts.append(time.monotonic())
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd="/",
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - there is one thread
            )

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def look_after(self) -> bool:
        """Say whether it has ended by itself, and remember how."""
        if self.is_kept_down or self._process is None or self._process.poll() is None:
            return False
        self._note_end(self._process.returncode)
        self._process = None
        return True

    def _note_end(self, status: int) -> None:
        self.ended_by_itself.append(
            {"started": self.starts[-1], "ended": time.monotonic(), "status": status}
        )

    async def stop(self) -> int:
        """End it as an operator does; give its exit status."""
        self.is_kept_down = True
        if self._process is None:
            return 0
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while self._process.poll() is None:  # noqa: ASYNC110 - a process tells nobody
                    await asyncio.sleep(LOOK_SECONDS)
        self.kill()
        status = self._process.returncode
        if status == FAILED:
            # It was starting, and met a store that is away; the checker knows whether it had answered by then.
            self._note_end(status)
            return 0
        return status


class World:
    """Everything that runs, and the ways in which it is hurt and healed."""

    def __init__(self, servers: EmbeddedServers) -> None:
        self.servers = servers
        give_clock(servers)
        self.pair = RedisPair(servers)
        self.services: list[Service] = []
        self.links: dict[str, Link] = {}
        self.trace = Trace()

    @property
    def redis(self) -> ClockedRedis:
        """The Redis that is in use."""
        return self.pair.in_use

    @property
    def postgres(self) -> PostgresServer:
        assert self.servers.postgres is not None
        return self.servers.postgres

    @property
    def stores(self) -> tuple[EmbeddedServer, ...]:
        return self.pair.in_use, self.pair.other, self.postgres

    async def open(self, logs: Path) -> None:
        """Open the links and start the services behind them."""
        await self.pair.open()
        urls = self.redis.url, self.servers.database_url
        for number in range(SERVICES):
            name = f"service-{number}"
            through: list[str] = []
            for store, url, marks in zip(
                ("redis", "postgres"), urls, (GATE_MARKS, LEDGER_MARKS), strict=True
            ):
                port = urlsplit(url).port or 0
                link = await Link(f"{name}>{store}", port, marks, self.trace).open()
                self.links[link.name] = link
                through.append(_with_port(url, link.port))
            self.services.append(Service(name, *through, logs / f"{name}.log"))
        for service in self.services:
            service.start()

    @property
    def commits_in_flight(self) -> int:
        """How many appends to the ledger have been sent and not been answered."""
        return sum(
            link.commits_in_flight for name, link in self.links.items() if "postgres" in name
        )

    async def supervise(self) -> None:
        """Start services again that have ended by themselves, for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for service in self.services:
                if service.look_after():
                    await asyncio.sleep(REVIVAL_SECONDS)
                # A fault may have started it meanwhile, or keep it down.
                if service.is_down and not service.is_kept_down:
                    service.start()

    async def heal(self) -> None:
        """End every fault that is still there."""
        for link in self.links.values():
            link.heal()
        for server in self.stores:
            signal_all_of(server, signal.SIGCONT)
            await revive(server)
        for service in self.services:
            service.send(signal.SIGCONT)

    def end_services(self) -> None:
        """End every service by force."""
        for service in self.services:
            service.is_kept_down = True
            service.kill()

    def close(self) -> None:
        """End the services and the links; where servers are stopped, let them go on to their end."""
        self.end_services()
        for server in self.stores:
            signal_all_of(server, signal.SIGCONT)
        self.pair.close()
        for link in self.links.values():
            link.close()


def signal_all_of(server: EmbeddedServer, number: signal.Signals) -> None:
    """Send a signal to every process of a store."""
    for process_id in processes_in(server.folder):
        with suppress(ProcessLookupError):
            os.kill(process_id, number)


def kill(server: EmbeddedServer) -> None:
    """End every process of a store at once; the one that is our child is also reaped."""
    signal_all_of(server, signal.SIGKILL)
    assert server.process is not None
    server.process.wait()


async def revive(server: EmbeddedServer) -> None:
    """Start a store again and wait until it takes commands."""
    while True:
        with suppress(OSError, StartError):
            if server.has_ended():
                server.mend()
                server.revive()
            elif server.answers():
                return
        await asyncio.sleep(LOOK_SECONDS)


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition(":")[0]
    return urlunsplit(parts._replace(netloc=f"{host}:{port}"))
