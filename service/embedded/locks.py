"""Locks on folders that the kernel releases, however their holder ends."""

import fcntl
import os
import time
from pathlib import Path

POLL_SECONDS = 0.05


class FolderLock:
    """An exclusive lock; a child that inherits the descriptor holds it until it ends too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock if no process holds it."""
        # Opened for reading, since an ordinary user may meet a file that root made.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self.descriptor = descriptor
        return True

    def acquire(self, *, timeout_seconds: float) -> bool:
        """Take the lock, waiting for a process that is about to end."""
        deadline = time.monotonic() + timeout_seconds
        while not self.try_acquire():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def close(self) -> None:
        """Give up this process's share; children that inherited the lock keep theirs."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
