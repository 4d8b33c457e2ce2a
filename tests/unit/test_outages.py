"""A server that is away is one line of the log, whoever waits for it; a fault of our own comes with all of it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import asyncpg
import pytest
from engine.shards import until

from allocation.errors import LedgerUnavailable
from service.workers.loop import Loop
from service.workers.outages import Outages

AWAY = [
    ConnectionRefusedError("refused"),
    TimeoutError(),
    LedgerUnavailable(),
    asyncpg.CannotConnectNowError("the database system is starting up"),
    asyncpg.AdminShutdownError("terminating connection"),
    asyncpg.ConnectionDoesNotExistError("connection was closed"),
]


class Worker:
    """A duty that meets whatever it is given, and counts its attempts."""

    def __init__(self, fault: Exception | None) -> None:
        self.fault, self.attempts = fault, 0

    async def run_once(self) -> int:
        """Try once."""
        self.attempts += 1
        if self.fault is not None:
            raise self.fault
        return 0


async def attempt(
    workers: list[Worker], outages: Outages, act: Callable[[], Awaitable[None]]
) -> None:
    """Run a loop for each worker while something is done."""
    loops = [
        Loop(
            f"w{number}",
            worker.run_once,
            idle_seconds=0.001,
            retry_seconds_max=0.001,
            outages=outages,
        )
        for number, worker in enumerate(workers)
    ]
    for loop in loops:
        loop.start()
    await act()
    for loop in loops:
        await loop.stop()


async def attempts(workers: list[Worker]) -> None:
    """Wait until each worker has tried some more times."""
    wanted = [worker.attempts + 5 for worker in workers]
    await until(lambda: all(w.attempts >= n for w, n in zip(workers, wanted, strict=True)))


@pytest.mark.parametrize("fault", AWAY, ids=repr)
async def test_outage_is_one_line(fault: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """However many workers wait for a server, and however often they try, one line says so, and no traceback."""
    workers = [Worker(fault) for _ in range(3)]
    await attempt(workers, Outages(), lambda: attempts(workers))
    (record,) = caplog.records
    assert record.exc_info is None
    assert record.levelno == logging.WARNING
    assert type(fault).__name__ in record.getMessage()
    assert "\n" not in record.getMessage()


async def test_next_outage_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    """An outage lasts while any worker is in it; one that comes after all have worked again is another."""
    first, second = Worker(OSError("away")), Worker(OSError("away"))

    async def act() -> None:
        await attempts([first, second])
        first.fault = None
        await attempts([first, second])
        first.fault = OSError("away")
        await attempts([first, second])
        assert len(caplog.records) == 1
        first.fault = second.fault = None
        await attempts([first, second])
        first.fault = OSError("away")
        await attempts([first, second])

    await attempt([first, second], Outages(), act)
    assert len(caplog.records) == 2


async def test_own_fault_has_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """What is no outage is logged with all that is known of it, also amid an outage, once while it lasts."""
    waiting, broken = Worker(OSError("away")), Worker(asyncpg.UndefinedTableError("no such table"))
    await attempt([waiting, broken], Outages(), lambda: attempts([waiting, broken]))
    told = {record.getMessage(): record.exc_info for record in caplog.records}
    assert len(caplog.records) == 2
    (of_our_own,) = [info for info in told.values() if info is not None]
    assert of_our_own[1] is broken.fault


async def test_a_loop_by_itself_needs_none(caplog: pytest.LogCaptureFixture) -> None:
    """A worker that shares its outages with nobody tells each once too."""
    worker = Worker(OSError("away"))
    loop = Loop("alone", worker.run_once, retry_seconds_max=0.001)
    loop.start()
    await attempts([worker])
    await loop.stop()
    await asyncio.sleep(0)
    assert len(caplog.records) == 1
