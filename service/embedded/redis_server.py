"""The embedded Redis: append-only file, no eviction, a password."""

import os
import signal
import socket
from typing import ClassVar

from service.embedded.ports import LOOPBACK
from service.embedded.server import EmbeddedServer

ANSWER_TIMEOUT_SECONDS = 1.0

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

    def command(self) -> list[str]:
        return [str(self.placement.redis_binary), str(self.folder / "redis.conf")]

    def answers(self) -> bool:
        # While Redis reads its data back it answers PING with an error, and is not ready.
        try:
            with socket.create_connection(
                (LOOPBACK, self.access.port), ANSWER_TIMEOUT_SECONDS
            ) as connection:
                connection.sendall(f"AUTH {self.access.password}\r\nPING\r\nQUIT\r\n".encode())
                with connection.makefile("rb") as replies:
                    return replies.readline() == b"+OK\r\n" and replies.readline() == b"+PONG\r\n"
        except OSError:
            return False


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
