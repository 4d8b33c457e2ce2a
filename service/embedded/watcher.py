"""The process that verifies what `ringfence up` serves: started beside it, started again, and ended with it."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from service.embedded.processes import dies_with_parent, stop_process

# Who starts wants to sell first.
FIRST_SECONDS = 3.0
LOOK_SECONDS = 0.5
RETRY_SECONDS, RETRY_SECONDS_MAX = 1.0, 60.0
STOP_SECONDS = 5.0
# Without -P the modules of a data folder's name would be looked for in the data folder.
COMMAND = (sys.executable, "-P", "-c", "from service.cli import main; main()", "watch", "--quiet")


class Watcher:
    """One `ringfence watch` on the servers of this process."""

    def __init__(self, redis_url: str, database_url: str, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._environment = os.environ | {
            "RINGFENCE_REDIS_URL": redis_url,
            "RINGFENCE_DATABASE_URL": database_url,
            "RINGFENCE_DATA_DIR": str(data_dir),
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def keep_running(self) -> None:
        """Start it, and again, more and more seldom, whenever it ends by itself."""
        await asyncio.sleep(FIRST_SECONDS)
        pause = RETRY_SECONDS
        while True:
            self._process = self._start()
            started = asyncio.get_running_loop().time()
            while self._process.poll() is None:  # noqa: ASYNC110 - it is the kernel that knows
                await asyncio.sleep(LOOK_SECONDS)
            sys.stderr.write("ringfence: The verification ended and is started again.\n")
            if asyncio.get_running_loop().time() - started > RETRY_SECONDS_MAX:
                pause = RETRY_SECONDS
            await asyncio.sleep(pause)
            pause = min(RETRY_SECONDS_MAX, 2 * pause)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            stop_process(self._process, ((signal.SIGTERM, STOP_SECONDS),))

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603 - our own command
            COMMAND,
            cwd=self._data_dir,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # Ctrl-C reaches a terminal's whole process group, and the order of stopping is ours.
            start_new_session=True,
            preexec_fn=dies_with_parent(signal.SIGTERM),  # noqa: PLW1509 - as for the servers
        )
