"""A program that starts services on demand, each in a process of its own, since tests start and kill many.

It imports the service once and forks for every line of JSON on its input; it answers with the process id.
When its input ends it kills whatever it started. Only tests run it, and only here may a service be told to
kill itself at a chosen step of the durable path: no code of the service knows of that.
"""

import asyncio
import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

import uvloop
from msgspec import Raw

import service.engine
from allocation.commands import Command
from allocation.gate.redis_gate import RedisGate
from allocation.ledger.postgres_ledger import PostgresLedger
from allocation.pipeline import Limits, Pipeline
from allocation.ports import Batch, Head, Identity
from service.main import serve
from service.settings import Settings


class CrashPoint:
    """Ends the process at one step, without a chance to tidy up, once it has been armed by a signal."""

    def __init__(self, step: str, passes: int) -> None:
        self._step, self._passes, self._armed = step, passes, False
        signal.signal(signal.SIGUSR1, self._arm)

    def _arm(self, _number: int, _frame: object) -> None:
        self._armed = True

    def reach(self, step: str) -> bool:
        """Say whether the process should end at this step, now."""
        if not self._armed or step != self._step:
            return False
        self._passes -= 1
        return self._passes < 0

    def die_at(self, step: str) -> None:
        if self.reach(step):
            die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crash_at(point: CrashPoint) -> None:
    """Let every gate and ledger that is built from now on pass the crash point."""

    class CrashingGate(RedisGate):
        async def decide(
            self,
            epoch: int,
            identity: Identity,
            commands: Sequence[Command | Raw],
            durable_sequence: int,
        ) -> Batch:
            deciding = super().decide(epoch, identity, commands, durable_sequence)
            # A call that only looks for overdue holds has no caller who could lose anything.
            if not commands:
                return await deciding
            point.die_at("before_gate")
            if point.reach("during_gate"):
                await _die_amid(deciding)
            batch = await deciding
            point.die_at("after_gate")
            return batch

    class CrashingLedger(PostgresLedger):
        async def append(self, head: Head, bodies: Sequence[bytes], last_hash: str) -> Head:
            point.die_at("before_append")
            appending = super().append(head, bodies, last_hash)
            if point.reach("during_append"):
                await _die_amid(appending)
            head = await appending
            point.die_at("after_append")
            return head

    service.engine.RedisGate = CrashingGate
    service.engine.PostgresLedger = CrashingLedger


async def _die_amid(call: Any) -> None:
    """Let a call be sent, but not its answer be read; when exactly is left to chance."""
    sending = asyncio.create_task(call)
    await asyncio.sleep(int.from_bytes(os.urandom(1)) / 255_000)
    die()
    raise AssertionError(f"Bug: alive after {sending}")


def run(order: dict[str, Any]) -> None:
    """Serve as ordered, until a signal ends it."""
    for place, value in order["replacing"].items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    if order["limits"]:
        limits = Limits(**order["limits"])
        service.engine.Pipeline = lambda *ports, **rest: Pipeline(*ports, limits=limits, **rest)
    if order["crash_step"]:
        crash_at(CrashPoint(order["crash_step"], order["crash_passes"]))
    settings = Settings(port=order["port"], demo=False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            serve(
                settings,
                redis_url=order["redis_url"],
                database_url=order["database_url"],
                development_key=order["development_key"],
                demo=False,
            )
        )


def fork(order: dict[str, Any]) -> int:
    """Start a service; the child never comes back from here."""
    process_id = os.fork()
    if process_id:
        return process_id
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDWR), sys.stdin.fileno())
    log = os.open(order["log_path"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, sys.stdout.fileno())
    os.dup2(log, sys.stderr.fileno())
    status = 1
    try:
        run(order)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    # The system takes the dead away by itself; whoever started them watches them.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    started: list[int] = []
    for line in sys.stdin:
        started.append(fork(json.loads(line)))
        sys.stdout.write(f"{started[-1]}\n")
        sys.stdout.flush()
    for process_id in started:
        try:
            os.kill(process_id, signal.SIGKILL)
        except ProcessLookupError:
            continue


if __name__ == "__main__":
    main()
