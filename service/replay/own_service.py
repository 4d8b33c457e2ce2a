"""A service for one replay: servers in a temporary folder, HTTP in a process of its own."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
from msgspec import Struct

from service.embedded.errors import StartError
from service.embedded.placement import POINTER
from service.embedded.ports import LOOPBACK, free_port
from service.embedded.servers import EmbeddedServers, embedded_servers
from service.embedded.signals import signals_ignored
from service.settings import PREFIX, Settings

READY_SECONDS_MAX = 120.0
READY_POLL_SECONDS = 0.05
STOP_SECONDS_MAX = 30.0
SERVERS_FOLDER = "servers"
_OK = 200


class Target(Struct, frozen=True):
    """A running service, and the servers behind it that an audit reads."""

    url: str
    key: str
    redis_url: str
    database_url: str


@contextmanager
def own_service() -> Generator[Target, None, None]:
    """Run a service, and remove everything it left; call it from the main thread."""
    with _temporary_folder() as folder:
        settings = Settings(data_dir=folder / SERVERS_FOLDER, demo=False)
        with embedded_servers(settings) as servers, _http_service(folder, servers) as target:
            yield target


@contextmanager
def _temporary_folder() -> Generator[Path, None, None]:
    folder = Path(tempfile.mkdtemp(prefix="ringfence-replay-"))
    try:
        # The servers may run under an account of their own, which must get through.
        folder.chmod(0o755)
        yield folder
    finally:
        with signals_ignored():
            pointer = folder / SERVERS_FOLDER / POINTER
            if pointer.is_file():
                # The servers' account could not reach the folder, so their data was put elsewhere.
                shutil.rmtree(pointer.read_text("utf-8").strip(), ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _http_service(folder: Path, servers: EmbeddedServers) -> Generator[Target, None, None]:
    port, key = free_port(()), f"replay_{secrets.token_urlsafe(24)}"
    target = Target(f"http://{LOOPBACK}:{port}", key, servers.redis_url, servers.database_url)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(PREFIX)
    } | {
        "RINGFENCE_DATA_DIR": str(folder / "service"),
        "RINGFENCE_REDIS_URL": target.redis_url,
        "RINGFENCE_DATABASE_URL": target.database_url,
        "RINGFENCE_HOST": LOOPBACK,
        "RINGFENCE_PORT": str(port),
        "RINGFENCE_DEMO": "0",
        "RINGFENCE_DEV_KEY": key,
        "RINGFENCE_EXIT_WITH_PARENT": "1",
    }
    command = (sys.executable, "-c", "from service.cli import main; main()", "up")
    log_path = folder / "service.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - this program itself
            command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _await_ready(process, target.url, log_path)
        yield target
    finally:
        with signals_ignored():
            process.terminate()
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_ready(process: "subprocess.Popen[bytes]", url: str, log_path: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS_MAX
    with httpx.Client(base_url=url, trust_env=False) as client:
        while not _is_ready(client):
            if process.poll() is not None or time.monotonic() > deadline:
                said = log_path.read_text("utf-8", errors="replace").strip().splitlines()
                last = said[-1] if said else "it said nothing"
                raise StartError(f"The service for the replay did not start: {last}")
            time.sleep(READY_POLL_SECONDS)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == _OK
    except httpx.TransportError:
        return False
