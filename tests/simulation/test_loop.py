"""The event loop in virtual time keeps asyncio's promises, and its own."""

import asyncio
from random import Random

import pytest
from simulation.loop import Lane, SimulationLoop, StuckError


def new_loop(seed: int = 0) -> SimulationLoop:
    """Give a loop whose order the seed decides."""
    return SimulationLoop(Random(seed))  # noqa: S311 - repeatable, not secret


def test_time_passes_only_when_nothing_is_ready() -> None:
    """An hour of sleep takes no time, and the clock stands exactly where it ends."""
    loop = new_loop()

    async def sleep() -> float:
        await asyncio.sleep(3_600)
        return loop.time()

    assert loop.run(sleep(), 4_000) == 3_600


def test_asyncio_works_on_it() -> None:
    """Time-outs, locks, events and gathered tasks do what they do on any loop."""

    async def work() -> list[str]:
        said: list[str] = []
        event, lock = asyncio.Event(), asyncio.Lock()

        async def wait(name: str) -> None:
            await event.wait()
            async with lock:
                await asyncio.sleep(1)
                said.append(name)

        async def wake() -> None:
            await asyncio.sleep(1)
            event.set()

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event.wait(), 0.5)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await event.wait()
        await asyncio.gather(wait("first"), wait("second"), wake())
        return said

    assert new_loop().run(work(), 10) == ["first", "second"]


def test_one_lane_runs_in_the_order_in_which_it_became_ready() -> None:
    """Within a process nothing overtakes, whatever the seed."""
    for seed in range(20):
        said: list[int] = []

        async def work(said: list[int]) -> None:
            loop = asyncio.get_running_loop()
            for number in range(10):
                loop.call_soon(said.append, number)
            await asyncio.sleep(1)

        new_loop(seed).run(work(said), 10)
        assert said == list(range(10))


def order_of_lanes(seed: int) -> str:
    """Let three lanes write down their names, in turns that the seed decides."""
    loop, said = new_loop(seed), []

    async def write(name: str) -> None:
        for _ in range(5):
            said.append(name)
            await asyncio.sleep(0)

    async def work() -> None:
        await asyncio.gather(*(loop.start(Lane(name), write(name), name) for name in "abc"))

    loop.run(work(), 10)
    return "".join(said)


def test_the_seed_decides_which_lane_goes_next() -> None:
    """The same seed gives the same order, and the seeds together many."""
    orders = [order_of_lanes(seed) for seed in range(10)]
    assert orders == [order_of_lanes(seed) for seed in range(10)]
    assert len(set(orders)) > 5


def test_a_paused_lane_goes_on_where_it_stopped() -> None:
    """What became due meanwhile runs late, when the lane goes on."""
    loop, lane = new_loop(), Lane("sleeper")
    woken: list[float] = []

    async def sleep() -> None:
        await asyncio.sleep(1)
        woken.append(loop.time())

    async def work() -> None:
        loop.start(lane, sleep(), "sleep")
        await asyncio.sleep(0.5)
        loop.pause(lane)
        await asyncio.sleep(5)
        assert woken == []
        loop.resume(lane)
        await asyncio.sleep(1)

    loop.run(work(), 10)
    assert woken == [5.5]


def test_a_killed_lane_never_runs_again() -> None:
    """Its tasks stay at their await: nothing after it is done, nor what they would do in the end."""
    loop, lane = new_loop(), Lane("victim")
    said: list[str] = []

    async def write() -> None:
        said.append("began")
        await asyncio.sleep(1)
        said.append("ended")

    async def work() -> None:
        loop.start(lane, write(), "write")
        await asyncio.sleep(0.5)
        loop.kill(lane)
        await asyncio.sleep(5)

    loop.run(work(), 10)
    assert said == ["began"]


def test_what_never_ends_is_found_out() -> None:
    """A wait for nothing is an error at once; endless work is one when the time is over."""

    async def wait() -> None:
        await asyncio.Event().wait()

    async def go_on() -> None:
        while True:  # noqa: ASYNC110 - endless on purpose
            await asyncio.sleep(1)

    with pytest.raises(StuckError, match="nothing will ever happen"):
        new_loop().run(wait(), 10)
    with pytest.raises(StuckError, match="not done after 10 s"):
        new_loop().run(go_on(), 10)
