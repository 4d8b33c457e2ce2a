"""Work that must not end by itself."""

import asyncio

import pytest

from service.endless import start_endless


async def end(fault: Exception | None) -> None:
    await asyncio.sleep(0)
    if fault is not None:
        raise fault


@pytest.mark.parametrize(
    ("fault", "told"), [(None, AssertionError), (ValueError("found"), ValueError)]
)
async def test_an_end_breaks_the_process(
    fault: Exception | None, told: type[BaseException]
) -> None:
    """Whoever waits for `broken` hears of the end, and of the fault behind it."""
    broken = asyncio.get_running_loop().create_future()
    start_endless(end(fault), "some work", broken)
    with pytest.raises(told):
        await asyncio.wait_for(broken, 5)


async def test_to_be_stopped_is_no_end() -> None:
    """A process that stops its work is not broken."""
    broken = asyncio.get_running_loop().create_future()
    task = start_endless(asyncio.sleep(60), "some work", broken)
    task.cancel()
    await asyncio.wait({task})
    assert not broken.done()
