"""Starts `ringfence up` as a real process and looks at what it leaves behind."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import asyncpg
import redis

START_SECONDS = 40.0
STOP_SECONDS = 20.0
COMMAND = (sys.executable, "-c", "from service.cli import main; main()", "up")


class Up:
    """One `ringfence up` on a data folder, ended by force when the test ends first."""

    def __init__(
        self,
        data_dir: Path,
        *,
        command: Sequence[str] = COMMAND,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.process = subprocess.Popen(
            command,
            cwd="/",
            env=clean_environment(data_dir, self.port) | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.finish()

    def await_ready(self) -> Self:
        eventually(self._answers_or_ended, START_SECONDS)
        assert self.process.poll() is None, self.finish()[1]
        return self

    def described(self) -> dict[str, Any]:
        description: dict[str, Any] = json.loads((self.data_dir / "up.json").read_text())
        return description

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.finish()[0]

    def finish(self) -> tuple[int, str]:
        """Wait for the end; give the exit status and what was written to stderr."""
        try:
            _, errors = self.process.communicate(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        return self.process.returncode, errors

    def _answers_or_ended(self) -> bool:
        return self.process.poll() is not None or (
            (self.data_dir / "up.json").exists() and answers(self.port)
        )


def clean_environment(data_dir: Path, port: int) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RINGFENCE_")}
    return kept | {
        "RINGFENCE_DATA_DIR": str(data_dir),
        "RINGFENCE_PORT": str(port),
        "RINGFENCE_DEMO": "0",
    }


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return True
    except OSError:
        return False


def listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def processes_in(data_dir: Path) -> list[int]:
    """List every process that works in the folder or below, which all servers' processes do."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            place = (entry / "cwd").readlink()
        except OSError:
            continue
        if place.is_relative_to(data_dir):
            found.append(int(entry.name))
    return found


def eventually(condition: Callable[[], bool], timeout_seconds: float = STOP_SECONDS) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_seconds} s"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def servers_access(data_dir: Path) -> dict[str, Any]:
    access: dict[str, Any] = json.loads((data_dir / "servers.json").read_text())
    return access


def redis_client(data_dir: Path) -> redis.Redis:
    access = servers_access(data_dir)["redis"]
    return redis.Redis(port=access["port"], password=access["password"], decode_responses=True)


async def ask_postgres(data_dir: Path, statement: str) -> Any:
    access = servers_access(data_dir)["postgres"]
    connection = await asyncpg.connect(
        host="127.0.0.1",
        port=access["port"],
        user="ringfence",
        password=access["password"],
        database="ringfence",
    )
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def eventual_answer(data_dir: Path, statement: str) -> Any:
    """Ask a server that may still be recovering."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return await ask_postgres(data_dir, statement)
        except (OSError, asyncpg.CannotConnectNowError):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
