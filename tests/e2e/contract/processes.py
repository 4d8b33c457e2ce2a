"""Services as real processes: started quickly, asked over HTTP, killed at will."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 15.0
ADMIN_KEY = "contract-admin"
ROOT = Path(__file__).parents[3]


class Stores(NamedTuple):
    """Where a service keeps what it knows."""

    redis_url: str
    database_url: str


class ServiceProcess:
    """One service on a port of its own."""

    def __init__(self, process_id: int, port: int, log_path: Path) -> None:
        self.process_id, self.port, self.log_path = process_id, port, log_path
        # A descriptor stays with this very process, even when its number is given to another.
        self._descriptor = os.pidfd_open(process_id)

    def await_ready(self) -> None:
        """Wait until it is ready to decide."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._is_ready():
            assert not self.has_ended(), self.log_path.read_text()
            assert time.monotonic() < deadline, self.log_path.read_text()
            time.sleep(0.01)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health/ready", timeout=2):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return False
        except OSError:
            return False

    def has_ended(self) -> bool:
        return self.await_end(0)

    def await_end(self, timeout_seconds: float = STOP_SECONDS_MAX) -> bool:
        """Say whether it ends in time."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(int(timeout_seconds * 1000)))

    def send_signal(self, number: signal.Signals) -> None:
        if not self.has_ended():
            signal.pidfd_send_signal(self._descriptor, number)

    def stop(self) -> None:
        """End it as an operator does."""
        self.send_signal(signal.SIGTERM)
        if not self.await_end():
            self.kill()
            raise AssertionError("the service does not stop when it is asked to")

    def kill(self) -> None:
        """End it as a power cut does."""
        self.send_signal(signal.SIGKILL)
        assert self.await_end()

    def resident_bytes(self) -> int:
        """Say how much memory it has."""
        status = Path(f"/proc/{self.process_id}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def close(self) -> None:
        self.kill()
        os.close(self._descriptor)


class Nursery:
    """Starts services, and ends those that are left when it is closed."""

    def __init__(self, parent: subprocess.Popen[str], folder: Path) -> None:
        self._parent, self._folder = parent, folder
        self._started: list[ServiceProcess] = []

    def start(
        self,
        stores: Stores,
        *,
        replacing: Mapping[str, object] | None = None,
        limits: Mapping[str, float] | None = None,
        crash_step: str = "",
        crash_passes: int = 0,
    ) -> ServiceProcess:
        """Start one service; `replacing` sets constants, `crash_step` waits to be armed by SIGUSR1."""
        port = free_port()
        log_path = self._folder / f"service-{len(self._started)}.log"
        order = {
            "redis_url": stores.redis_url,
            "database_url": stores.database_url,
            "development_key": ADMIN_KEY,
            "port": port,
            "log_path": str(log_path),
            "replacing": dict(replacing or {}),
            "limits": dict(limits or {}),
            "crash_step": crash_step,
            "crash_passes": crash_passes,
        }
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        self._parent.stdin.write(f"{json.dumps(order)}\n")
        self._parent.stdin.flush()
        service = ServiceProcess(int(self._parent.stdout.readline()), port, log_path)
        self._started.append(service)
        return service

    def close(self) -> None:
        for service in self._started:
            service.close()


@contextmanager
def nursery(folder: Path) -> Generator[Nursery, None, None]:
    """Open a place to start services from; their logs go to `folder`."""
    parent = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("service_process.py"))],
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    opened = Nursery(parent, folder)
    try:
        yield opened
    finally:
        opened.close()
        parent.communicate()


def clean_environment() -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RINGFENCE_")}
    return kept | {"PYTHONPATH": str(ROOT)}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
