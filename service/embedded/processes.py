"""Child processes that cannot outlive their parent."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from service.embedded.account import Account
from service.embedded.locks import FolderLock

PR_SET_PDEATHSIG = 1
PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "TMPDIR")


def start_process(  # noqa: PLR0913
    command: Sequence[str],
    *,
    account: Account | None,
    folder: Path,
    output: BinaryIO,
    lock: FolderLock,
    signal_on_parent_death: signal.Signals,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start a server in a session of its own, which ends when the calling thread does."""
    if lock.descriptor is None:
        raise AssertionError("Bug: a server starts without the lock of its folder.")
    return subprocess.Popen(  # noqa: S603
        command,
        cwd=folder,
        env=_environment(),
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT,
        pass_fds=(lock.descriptor,),
        # Ctrl-C reaches a terminal's whole process group, and the order of stopping is ours.
        start_new_session=True,
        umask=0o077,
        # The kernel clears the signal when the user changes, and this hook runs after that.
        preexec_fn=dies_with_parent(signal_on_parent_death),  # noqa: PLW1509
        user=None if account is None else account.user_id,
        group=None if account is None else account.group_id,
        extra_groups=None if account is None else [],
    )


def dies_with_parent(number: signal.Signals) -> Callable[[], None] | None:
    """Give what a child must do before it begins, so that the end of the calling thread sends it a signal."""
    if sys.platform != "linux":
        return None
    parent, prctl = os.getpid(), _libc_prctl()

    def ask_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:
            os._exit(1)

    return ask_kernel


def stop_with_parent() -> None:
    """Receive SIGTERM when the process that started this one ends, even by SIGKILL."""
    parent = os.getppid()
    _libc_prctl()(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def stop_process(process: subprocess.Popen[bytes], steps: Sequence[tuple[int, float]]) -> None:
    """Send each signal in turn and wait its seconds, until the process has ended."""
    for number, wait_seconds in (*steps, (signal.SIGKILL, 10.0)):
        process.send_signal(number)
        try:
            process.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            continue
        return


def _environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**kept, "LC_ALL": "C", "TZ": "UTC"}


def _libc_prctl() -> Callable[[int, int], int]:
    return ctypes.CDLL(None).prctl
