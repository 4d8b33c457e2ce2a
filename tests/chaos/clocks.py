"""A Redis whose clock can be set while it runs, apart from that of everybody else."""

import mmap
import os
import subprocess
import time
from pathlib import Path

from service.embedded.redis_server import RedisServer
from service.embedded.servers import EmbeddedServers

_SOURCE = Path(__file__).with_name("set_clock.c")
_OFFSET_BYTES = 8
_NS_PER_SECOND = 1_000_000_000
_LOOK_SECONDS = 0.02


class ClockedRedis(RedisServer):
    """A Redis that asks for the time of day through a preloaded library."""

    @property
    def _library(self) -> Path:
        return self.placement.data / "set_clock.so"

    @property
    def _offset_path(self) -> Path:
        return self.placement.data / f"{self.folder_name}.clock"

    def set_clock(self, ahead_seconds: float) -> None:
        """Set the clock ahead of the machine's, or behind it. It stays so when the server starts again."""
        with (
            self._offset_path.open("r+b") as file,
            mmap.mmap(file.fileno(), _OFFSET_BYTES) as mapped,
        ):
            ahead_ns = round(ahead_seconds * _NS_PER_SECOND)
            # One write of eight aligned bytes: nobody reads a half of it.
            memoryview(mapped).cast("q")[0] = ahead_ns

    def prepare(self) -> None:
        super().prepare()
        if not self._offset_path.exists():
            self._offset_path.write_bytes(bytes(_OFFSET_BYTES))
            self._offset_path.chmod(0o644)
        if not self._library.exists():
            self._build_library()

    def command(self) -> list[str]:
        # The process becomes the server: nothing stands between it and its signals. The one that tells of a file
        # that has grown too large would end it, where a full disk is an error (chaos/disks.py).
        preload = f"LD_PRELOAD={self._library}", f"SET_CLOCK_FILE={self._offset_path}"
        return ["/usr/bin/env", "--ignore-signal=XFSZ", *preload, *super().command()]

    def _build_library(self) -> None:
        built = self._library.with_suffix(f".{os.getpid()}")
        command = ["cc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", built, _SOURCE]
        subprocess.run(command, check=True)
        built.chmod(0o755)
        built.replace(self._library)


def give_clock(servers: EmbeddedServers) -> ClockedRedis:
    """Start the Redis of `servers` anew, in the same place, with a clock that can be set."""
    plain = servers.redis
    assert plain is not None
    plain.stop()
    clocked = ClockedRedis(plain.placement, plain.access, plain.avoided_ports)
    clocked.start()
    while not clocked.is_ready():
        time.sleep(_LOOK_SECONDS)
    servers.redis = clocked
    return clocked
