"""The embedded PostgreSQL: durable settings, checksums, a password."""

import os
import shutil
import signal
from pathlib import Path
from typing import ClassVar

from service.embedded.errors import StartError
from service.embedded.placement import make_folder
from service.embedded.ports import LOOPBACK
from service.embedded.server import EmbeddedServer

VERSION = "18"
USER = "ringfence"
DATABASE = "ringfence"

SETTINGS = {
    "listen_addresses": LOOPBACK,
    # TCP only: a socket's path has a length limit that a data folder may exceed.
    "unix_socket_directories": "",
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "max_wal_size": "1GB",
    # Every query here is short, and compiling one costs more than running it.
    "jit": "off",
    "log_checkpoints": "off",
}


class PostgresServer(EmbeddedServer):
    """A PostgreSQL of its own; the folder is made aside and moved in place when complete."""

    name = "The embedded PostgreSQL"
    folder_name = "postgres"
    # Without its parent nobody waits for the clients to leave, so the write-ahead log must do.
    signal_on_parent_death = signal.SIGQUIT
    stop_steps: ClassVar = ((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0))

    @property
    def url(self) -> str:
        return f"postgres://{USER}:{self.access.password}@{self.address}/{DATABASE}"

    def prepare(self) -> None:
        if not any(self.folder.iterdir()):
            self._initialise()
        self._require_our_version()
        self._forget_dead_postmaster()

    def command(self) -> list[str]:
        options = [f"--{name}={value}" for name, value in SETTINGS.items()]
        return [
            str(self.placement.postgres_binaries / "postgres"),
            f"-D{self.folder}",
            f"--port={self.access.port}",
            *options,
        ]

    def answers(self) -> bool:
        # The postmaster itself writes in its eighth line whether it takes connections.
        lines = self._postmaster_lines()
        status_line = 7
        return (
            len(lines) > status_line
            and lines[0] == str(self.process_id)
            and lines[status_line].strip() == "ready"
        )

    def _initialise(self) -> None:
        draft = self.folder.with_name("postgres.initialising")
        password = self.folder.with_name("postgres.password")
        shutil.rmtree(draft, ignore_errors=True)
        make_folder(draft, self.placement.account)
        self._write_password(password)
        single = [str(self.placement.postgres_binaries / "postgres"), "--single", f"-D{draft}"]
        try:
            self.run_to_end(self._initdb_command(draft, password), draft)
            self.run_to_end([*single, "postgres"], draft, f"CREATE DATABASE {DATABASE}\n")
            self.folder.rmdir()
            draft.rename(self.folder)
        finally:
            password.unlink(missing_ok=True)
            shutil.rmtree(draft, ignore_errors=True)

    def _initdb_command(self, draft: Path, password: Path) -> list[str]:
        return [
            str(self.placement.postgres_binaries / "initdb"),
            f"--pgdata={draft}",
            f"--username={USER}",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--data-checksums",
            "--encoding=UTF8",
            # Built in, so that sorting never changes with the machine's C library.
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
        ]

    def _write_password(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{self.access.password}\n")
        if self.placement.account is not None:
            os.chown(path, *self.placement.account)

    def _require_our_version(self) -> None:
        try:
            found = (self.folder / "PG_VERSION").read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            raise StartError(
                f"The folder {self.folder} holds something that is not a PostgreSQL data folder."
            ) from None
        if found != VERSION:
            raise StartError(
                f"The folder {self.folder} was made by PostgreSQL {found}, "
                f"and the embedded one is {VERSION}."
            )

    def _forget_dead_postmaster(self) -> None:
        # Its number may belong to another process by now, and PostgreSQL would then refuse to
        # start. The folder's lock is ours, so only a server started by hand can be meant.
        lines = self._postmaster_lines()
        if lines and not _works_in(lines[0], self.folder):
            (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _postmaster_lines(self) -> list[str]:
        try:
            text = (self.folder / "postmaster.pid").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        return text.splitlines() or ["0"]


def _works_in(process_id: str, folder: Path) -> bool:
    try:
        return (Path("/proc") / process_id / "cwd").samefile(folder)
    except OSError:
        return False
