"""The servers under test, as real processes: `ringfence up` on a new data folder, and the empty handler."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import asyncpg
from msgspec import Struct

from allocation.ledger.queries import named_queries
from allocation.outcomes import Kind
from benchmarks.load import LoadFailed, Plan, run_plan
from benchmarks.messages import KEY, message

ROOT = Path(__file__).parents[1]
START_SECONDS = 90.0
STOP_SECONDS = 30.0
POLL_SECONDS = 0.05
UNITS_PLENTY = 1_000_000_000
LINES_PER_MOVEMENT = 2_000
# User and system time, counted from the field behind the name.
_CPU_TICKS = slice(11, 13)
_UP = (sys.executable, "-c", "from service.cli import main; main()", "up")


class Running(Struct, frozen=True):
    """A service that answers."""

    port: int
    process_id: int
    data_dir: Path
    database_url: str

    def cpu_seconds(self) -> float:
        """Read how long the service's process has used a CPU."""
        return _cpu_seconds(self.process_id)

    def cpu_seconds_with_children(self) -> float:
        """Read how long the service and the processes that it has started have used a CPU."""
        return sum(map(_cpu_seconds, (self.process_id, *self._children())))

    def await_idle_child(self) -> None:
        """Wait until a process that the service starts beside itself has started, and has nothing to do."""
        deadline, before = time.monotonic() + START_SECONDS, 0.0
        while time.monotonic() < deadline:
            spent = sum(map(_cpu_seconds, self._children()))
            if 0.0 < spent == before:
                return
            before = spent
            time.sleep(1.0)
        raise LoadFailed(f"The service had no idle process beside it within {START_SECONDS:g} s.")

    def _children(self) -> list[int]:
        process_id = self.process_id
        children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text("ascii")
        return [int(text) for text in children.split()]

    def resident_bytes(self) -> int:
        """Read how much memory the service's process has."""
        status = Path(f"/proc/{self.process_id}/status").read_text("ascii")
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024


@contextlib.contextmanager
def running_service() -> Iterator[Running]:
    """Start `ringfence up` on a new folder, and leave nothing of it behind."""
    with open_folder() as folder, _running(ROOT, folder / "servers", {}) as (process_id, port):
        data_dir = folder / "servers"
        yield Running(port, process_id, data_dir, _database_url(data_dir))


@contextlib.contextmanager
def running_on(tree: Path, data_dir: Path, redis_url: str, database_url: str) -> Iterator[Running]:
    """Start the `ringfence up` of any checkout on servers that are there already."""
    named = {"RINGFENCE_REDIS_URL": redis_url, "RINGFENCE_DATABASE_URL": database_url}
    with _running(tree, data_dir, named) as (process_id, port):
        yield Running(port, process_id, data_dir, database_url)


@contextlib.contextmanager
def running_empty_handler() -> Iterator[int]:
    """Start the handler that does nothing, and give its port."""
    port = free_port()
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "benchmarks.empty_handler", str(port)], cwd=ROOT
    )
    try:
        _await_answer(process, port, "/health/live")
        yield port
    finally:
        _stop(process)


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Give a folder that the account of the embedded servers reaches too."""
    folder = Path(tempfile.mkdtemp(prefix="ringfence-bench-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def load_catalogue(service: Running, stock: dict[str, int]) -> None:
    """Make one channel that sells from two locations, and the SKUs with their units at the first."""
    send_once(
        service,
        [
            message("PUT", "/v1/locations/LON", {"name": "London"}),
            message("PUT", "/v1/locations/NYC", {"name": "New York"}),
        ],
    )
    send_once(service, [message("PUT", "/v1/channels/web", {"locations": ["LON", "NYC"]})])
    send_once(service, [message("PUT", f"/v1/skus/{sku}", {}) for sku in stock])
    load_id = time.time_ns()
    lines = [
        {"sku": sku, "location": "LON", "quantity": units} for sku, units in stock.items() if units
    ]
    receipts = [
        {
            "source": "bench",
            "event_id": f"{load_id}-{first}",
            "kind": "receipt",
            "lines": lines[first : first + LINES_PER_MOVEMENT],
        }
        for first in range(0, len(lines), LINES_PER_MOVEMENT)
    ]
    send_once(service, [message("POST", "/v1/movements", receipt) for receipt in receipts])


def send_once(service: Running, messages: list[tuple[bytes, bytes]]) -> None:
    """Send each message once; each must succeed."""
    run_plan(
        Plan(
            port=service.port,
            templates=messages,
            expected=[200, 201],
            mode="once",
            connections=min(16, len(messages)),
            warm_up_seconds=0.0,
        )
    )


def require_in_ledger(service: Running, key_prefix: str, statuses: dict[int, int]) -> None:
    """Fail where the ledger does not have exactly the decisions that were acknowledged."""
    rows = asyncio.run(_decisions_of(service.database_url, key_prefix))
    found = {Kind(kind): count for kind, count in rows}
    wanted = {Kind.HELD: statuses.get(201, 0), Kind.REFUSED: statuses.get(409, 0)}
    wanted = {kind: count for kind, count in wanted.items() if count}
    if found != wanted:
        raise LoadFailed(f"The ledger has {found}, acknowledged were {wanted}.")


async def _decisions_of(database_url: str, key_prefix: str) -> list[tuple[int, int]]:
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(named_queries("benchmarks")["decisions_of"], key_prefix)
    finally:
        await connection.close()
    return [(row[0], row[1]) for row in rows]


@contextlib.contextmanager
def _running(tree: Path, data_dir: Path, named: dict[str, str]) -> Iterator[tuple[int, int]]:
    port = free_port()
    process = subprocess.Popen(  # noqa: S603
        _UP,
        cwd=tree,
        env=_environment(data_dir, port) | named,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        _await_answer(process, port, "/health/ready")
        yield process.pid, port
    finally:
        _stop(process)


def _cpu_seconds(process_id: int) -> float:
    text = Path(f"/proc/{process_id}/stat").read_text("ascii")
    fields = text.rpartition(")")[2].split()
    return sum(map(int, fields[_CPU_TICKS])) / os.sysconf("SC_CLK_TCK")


def _environment(data_dir: Path, port: int) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RINGFENCE_")}
    return kept | {
        "RINGFENCE_DATA_DIR": str(data_dir),
        "RINGFENCE_PORT": str(port),
        "RINGFENCE_DEMO": "0",
        "RINGFENCE_DEV_KEY": KEY,
        "RINGFENCE_EXIT_WITH_PARENT": "1",
    }


def _database_url(data_dir: Path) -> str:
    access = json.loads((data_dir / "servers.json").read_text("utf-8"))["postgres"]
    return f"postgresql://ringfence:{access['password']}@127.0.0.1:{access['port']}/ringfence"


def _await_answer(process: subprocess.Popen[bytes], port: int, path: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LoadFailed(f"A server ended with status {process.returncode} before it served.")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2):
                return
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            pass
        time.sleep(POLL_SECONDS)
    raise LoadFailed(f"A server did not answer within {START_SECONDS:g} s.")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """Find a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
