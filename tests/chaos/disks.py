"""A disk that is full, for the files of one server: what it writes beyond a size fails, until there is room again.

A limit on the size of files needs no rights and no disk of its own. A write that crosses it is cut short, and the
next fails, as on a disk without space; the error is named otherwise, and is handled in the same places.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
from e2e.running import processes_in

from service.embedded.postgres_server import PostgresServer
from service.embedded.redis_server import RedisServer
from service.embedded.server import EmbeddedServer

# So much may still be written before it fails: some failures come at once, some in the middle of a write.
ROOM_BYTES_MAX = 4_096
# Postgres' log is in files of this size; a disk for two of them, and a little.
LOG_FILE_BYTES = 16 << 20
DISK_BYTES = 3 * LOG_FILE_BYTES
_LOOK_SECONDS = 0.02


def fill(server: EmbeddedServer, size_bytes: int) -> None:
    """Let no file of a server grow beyond a size."""
    _limit(server, str(size_bytes))


def give_room(server: EmbeddedServer) -> None:
    """Let what is left of a server write again."""
    _limit(server, "unlimited")


def _limit(server: EmbeddedServer, size: str) -> None:
    # The first process first: what it starts from then on has the limit too. The others may end meanwhile.
    processes = [server.process_id, *processes_in(server.folder)]
    command = f'for process; do prlimit --pid "$process" --fsize={size}: || true; done'
    account = server.placement.account
    # Only a process of the same account may do this everywhere, even where root may not.
    subprocess.run(
        ["/bin/sh", "-c", command, "sh", *map(str, processes)],
        check=True,
        stderr=subprocess.DEVNULL,
        user=None if account is None else account.user_id,
        group=None if account is None else account.group_id,
    )


def newest_append_only_file(server: RedisServer) -> Path:
    """Find the file that Redis is writing its commands to."""
    return max((server.folder / "appendonlydir").glob("*.incr.aof"), key=_number_of)


def _number_of(path: Path) -> int:
    # appendonly.aof.12.incr.aof
    return int(path.name.split(".")[-3])


async def log_position_bytes(server: PostgresServer) -> int:
    """Say how far into its file Postgres writes its log."""
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(
            "SELECT file_offset FROM pg_walfile_name_offset(pg_current_wal_insert_lsn())"
        )
    finally:
        await connection.close()


class _OwnDisk:
    """A small disk that one folder of a server lies on."""

    def __init__(self, folder: Path) -> None:
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 10, 1):
                with suppress(OSError):
                    while file.write(bytes(size)):
                        pass

    def give_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


class _NoDisk:
    """For a machine that lets nobody mount: a limit on the length of files."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self._server, self._folder = server, folder

    def fill(self) -> None:
        longest = max(path.stat().st_size for path in self._folder.iterdir())
        fill(self._server, min(longest, LOG_FILE_BYTES // 2))

    def give_room(self) -> None:
        give_room(self._server)


@contextmanager
def small_disk(server: EmbeddedServer, folder: Path) -> Iterator[_OwnDisk | _NoDisk]:
    """Put a folder of a server on a disk of its own, where that is allowed; in the end the server is stopped."""
    is_mounted = _move_to_own_disk(server, folder)
    disk = _OwnDisk(folder) if is_mounted else _NoDisk(server, folder)
    try:
        yield disk
    finally:
        disk.give_room()
        server.stop()
        if is_mounted:
            _run("umount", folder)


def _move_to_own_disk(server: EmbeddedServer, folder: Path) -> bool:
    server.stop()
    kept = folder.with_name(f"{folder.name}.kept")
    shutil.copytree(folder, kept)
    is_mounted = _run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=0700", "none", folder)
    if is_mounted:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        account = server.placement.account
        for path in (folder, *folder.rglob("*")) if account is not None else ():
            os.chown(path, *account)
    shutil.rmtree(kept)
    server.start()
    while not server.is_ready():
        time.sleep(_LOOK_SECONDS)
    return is_mounted


def _run(*command: str | Path) -> bool:
    done = subprocess.run(["/usr/bin/env", *command], check=False, stderr=subprocess.DEVNULL)
    return done.returncode == 0
