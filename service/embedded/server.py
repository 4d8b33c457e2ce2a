"""What the embedded Redis and PostgreSQL share: start on a free port, restart, stop."""

import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from pathlib import Path
from typing import ClassVar

from service.embedded.credentials import Access
from service.embedded.errors import StartError
from service.embedded.locks import FolderLock
from service.embedded.placement import Placement, make_folder
from service.embedded.ports import LOOPBACK, free_port, is_free
from service.embedded.processes import start_process, stop_process
from service.embedded.signals import signals_deferred

# A server of an earlier start may still be writing its last pages; the kernel has told it to end.
LEFTOVER_WAIT_SECONDS = 20.0
START_ATTEMPTS_MAX = 5

FULL_DISK_MARKS = ("No space left on device", "Check free disk space")
# How PostgreSQL, its tools and Redis mark a line that says why they end.
COMPLAINT_MARKS = ("FATAL: ", "PANIC: ", "error: ", " # ")


class EmbeddedServer(ABC):
    """One server in its own folder, on a loopback port of its own."""

    name: ClassVar[str]
    folder_name: ClassVar[str]
    signal_on_parent_death: ClassVar[signal.Signals]
    stop_steps: ClassVar[Sequence[tuple[int, float]]]

    def __init__(self, placement: Placement, access: Access, avoided_ports: Container[int]) -> None:
        self.placement = placement
        self.access = access
        self.avoided_ports = avoided_ports
        self.folder = placement.data / self.folder_name
        self.log_path = placement.data / f"{self.folder_name}.log"
        self.lock = FolderLock(placement.data / f"{self.folder_name}.lock")
        self.process: subprocess.Popen[bytes] | None = None
        self.attempts = 0

    @abstractmethod
    def prepare(self) -> None:
        """Make the folder ready for `command`, while no server runs on it."""

    @abstractmethod
    def command(self) -> list[str]:
        """Give the command that serves on `access.port` in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether the running server takes commands."""

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.access.port}"

    @property
    def process_id(self) -> int:
        if self.process is None:
            raise AssertionError(f"Bug: {self.name} was asked for its process before its start.")
        return self.process.pid

    def start(self) -> None:
        """Start on the remembered port, or on another where that one is taken."""
        if not self.lock.acquire(timeout_seconds=LEFTOVER_WAIT_SECONDS):
            raise StartError(f"An earlier {self.name} still runs on the folder {self.folder}.")
        try:
            make_folder(self.folder, self.placement.account)
            if self.access.port == 0 or not is_free(self.access.port):
                self.access.port = free_port(self.avoided_ports)
            self._spawn()
        finally:
            self.lock.close()

    def is_ready(self) -> bool:
        """Tell whether the start is complete; a port lost to another process is replaced."""
        if not self.has_ended():
            return self.answers()
        self.attempts += 1
        if self.attempts < START_ATTEMPTS_MAX and self._can_try_again():
            self.start()
            return False
        raise StartError(f"{self.name} did not start: {self._reason()} (log: {self.log_path})")

    def mend(self) -> bool:
        """Put out of the way what kept the server from starting, where nothing is lost by that."""
        return False

    def has_ended(self) -> bool:
        return self.process is None or self.process.poll() is not None

    def revive(self) -> bool:
        """Start again on the same address, unless leftovers of the ended server still run."""
        if not self.lock.try_acquire():
            return False
        try:
            self._spawn()
        finally:
            self.lock.close()
        return True

    def ask_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.stop_steps[0][0])

    def stop(self) -> None:
        """End the process, with force where it does not follow."""
        if self.process is not None and self.process.poll() is None:
            stop_process(self.process, self.stop_steps)

    def run_to_end(self, command: list[str], folder: Path, given: str = "") -> None:
        """Run one preparing command of the server, and stop the start where it fails."""
        process = None
        try:
            with self.log_path.open("wb") as output, signals_deferred():
                process = start_process(
                    command,
                    account=self.placement.account,
                    folder=folder,
                    output=output,
                    lock=self.lock,
                    signal_on_parent_death=signal.SIGTERM,
                    stdin=subprocess.PIPE,
                )
            process.communicate(given.encode())
        except BaseException:
            if process is not None:
                stop_process(process, ((signal.SIGTERM, 5.0),))
            raise
        if process.returncode != 0:
            raise StartError(
                f"{self.name} could not be set up: {self._reason()} (log: {self.log_path})"
            )

    def _spawn(self) -> None:
        self.prepare()
        if self.log_path.exists():
            self.log_path.replace(self.log_path.with_suffix(".previous.log"))
        with self.log_path.open("wb") as output, signals_deferred():
            self.process = start_process(
                self.command(),
                account=self.placement.account,
                folder=self.folder,
                output=output,
                lock=self.lock,
                signal_on_parent_death=self.signal_on_parent_death,
            )

    def _can_try_again(self) -> bool:
        if b"Address already in use" in self.log_path.read_bytes():
            self.access.port = 0
            return True
        return self.mend()

    def _reason(self) -> str:
        """Say in a few words what the log says at length."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace")
        if any(mark in text for mark in FULL_DISK_MARKS):
            return "the disk is full"
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        complaints = [found for line in lines if (found := _complaint(line)) is not None]
        return (complaints[-1] if complaints else " ".join(lines[-3:])).rstrip(".")


def _complaint(line: str) -> str | None:
    for mark in COMPLAINT_MARKS:
        if mark in line and "WARNING" not in line:
            return line.split(mark, 1)[1].strip()
    return None
