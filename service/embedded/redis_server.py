"""The embedded Redis: append-only file, no eviction, a password."""

import os
import shutil
import signal
import sys
from typing import Any, ClassVar, cast

from redis import Redis, RedisError

from service.embedded.ports import LOOPBACK
from service.embedded.server import EmbeddedServer

ANSWER_TIMEOUT_SECONDS = 1.0
# A disk that was full may have left a hole in the middle, which Redis does not mend by itself.
UNREADABLE_MARK = b"Bad file format reading the append only file"
DAMAGED_FOLDER = "appendonlydir.damaged"

CONFIGURATION = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir {folder}
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
repl-backlog-ttl 0
shutdown-on-sigterm now force
"""


class RedisServer(EmbeddedServer):
    """A plain Redis; its settings stand in a file that only its account may read."""

    name = "The embedded Redis"
    folder_name = "redis"
    signal_on_parent_death = signal.SIGTERM
    stop_steps: ClassVar = ((signal.SIGTERM, 10.0),)

    @property
    def url(self) -> str:
        return f"redis://:{self.access.password}@{self.address}/0"

    def prepare(self) -> None:
        path = self.folder / "redis.conf"
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(
                CONFIGURATION.format(
                    host=LOOPBACK,
                    port=self.access.port,
                    password=self.access.password,
                    folder=_quoted(str(self.folder)),
                )
            )
        if self.placement.account is not None:
            os.chown(path, *self.placement.account)

    def mend(self) -> bool:
        """Begin without the append-only file that Redis refuses to read: the ledger has all that was in it."""
        if UNREADABLE_MARK not in self.log_path.read_bytes():
            return False
        damaged = self.folder / DAMAGED_FOLDER
        shutil.rmtree(damaged, ignore_errors=True)
        (self.folder / "appendonlydir").rename(damaged)
        sys.stderr.write(f"ringfence: Redis cannot read its data; they are kept in {damaged}.\n")
        return True

    def command(self) -> list[str]:
        return [str(self.placement.redis_binary), str(self.folder / "redis.conf")]

    def answers(self) -> bool:
        # The client's own types do not say what its commands give.
        client = cast(
            "Any",
            Redis(
                LOOPBACK,
                self.access.port,
                password=self.access.password,
                socket_timeout=ANSWER_TIMEOUT_SECONDS,
            ),
        )
        with client:
            try:
                # A copied data folder has the same password: only the number tells whose this is.
                # And while Redis reads its data back it refuses PING, and is not ready.
                found = client.info("server")["process_id"]
                return bool(found == self.process_id and client.ping())
            except RedisError:
                return False


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
