"""A disk that is full, for the files of one server: what it writes beyond a size fails, until there is room again.

A limit on the size of files needs no rights and no disk of its own. A write that crosses it is cut short, and the
next fails, as on a disk without space; the error is named otherwise, and is handled in the same places.
"""

import subprocess
from pathlib import Path

import asyncpg
from e2e.running import processes_in

from service.embedded.postgres_server import PostgresServer
from service.embedded.redis_server import RedisServer
from service.embedded.server import EmbeddedServer

# So much may still be written before it fails: some failures come at once, some in the middle of a write.
ROOM_BYTES_MAX = 4_096


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
