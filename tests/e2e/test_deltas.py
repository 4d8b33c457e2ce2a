"""Snapshots and deltas of a channel: gapless, durable, resumable, and only what changed."""

import asyncio
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from listening import (
    CHANNEL,
    OTHER_CHANNEL,
    SOLD_ELSEWHERE,
    SOLD_FROM,
    Event,
    Listening,
    listening,
    soon,
    take,
)

from service.deltas.store import DeltaStore
from service.workers.pruning import Pruning

SKUS = ("MUG", "TEE")


@pytest.fixture
async def running(redis_url: str, database_url: str) -> AsyncIterator[Listening]:
    """Run a service with two SKUs of 100 units."""
    async with listening(redis_url, database_url) as started:
        await started.set_up(*SKUS)
        yield started


async def statuses(running: Listening, *addresses: str) -> list[tuple[int, str]]:
    answers = [await running.client.get(f"/v1/channels/{address}") for address in addresses]
    return [(answer.status_code, answer.json()["type"].rpartition("/")[2]) for answer in answers]


async def test_a_snapshot_shows_every_figure_as_the_last_answer_left_it(
    running: Listening,
) -> None:
    """A snapshot has every SKU with its durable figure, and a cursor to go on from."""
    await running.sell("MUG", "cart-1", 3)
    first = await running.snapshot()
    await running.sell("MUG", "cart-2", 2)
    second = await running.snapshot()
    assert first["channel"] == CHANNEL
    figures = {item["sku"]: item["available"] for item in first["items"]}
    assert figures == {"MUG": 97, "TEE": 100}
    figures = {item["sku"]: item["available"] for item in second["items"]}
    assert figures == {"MUG": 95, "TEE": 100}
    assert second["cursor"] == first["cursor"] + 1
    answer = await running.client.get(f"/v1/availability?channel={CHANNEL}&sku=MUG&sku=TEE")
    assert second["items"] == answer.json()["items"]


async def test_events_continue_the_snapshot_without_a_gap(running: Listening) -> None:
    """Events after a snapshot are numbered one by one, and folded into it give the figures of now."""
    snapshot = await running.snapshot()
    async with running.stream(snapshot["cursor"]) as events:
        for number in range(20):
            await running.sell(SKUS[number % 2], f"cart-{number}")
            await take(events, 1)
        await running.sell("MUG", "last", 5)
        (last,) = await take(events, 1)
    assert (last.id, last.sku, last.available) == (snapshot["cursor"] + 21, "MUG", 85)
    now = await running.snapshot()
    assert {item["sku"]: item["available"] for item in now["items"]} == {"MUG": 85, "TEE": 90}
    assert now["cursor"] == last.id


async def test_a_burst_on_one_sku_gives_fewer_events_that_end_with_the_newest_figure(
    running: Listening,
) -> None:
    """Changes that come faster than they are published are one event each tick, never an old figure."""
    snapshot = await running.snapshot()
    async with running.stream(snapshot["cursor"]) as events:
        await asyncio.gather(*(running.sell("MUG", f"cart-{number}") for number in range(50)))
        seen = await take(events, 1)
        while seen[-1].available != 50:
            seen += await take(events, 1)
    assert len(seen) < 50
    assert [event.id for event in seen] == list(range(seen[0].id, seen[0].id + len(seen)))
    assert sorted(seen, key=lambda event: event.version) == seen


async def test_only_a_change_of_the_channels_own_figure_is_an_event(running: Listening) -> None:
    """Stock that the channel does not source from changes nothing for it."""
    snapshot = await running.snapshot()
    async with running.stream(snapshot["cursor"]) as events:
        await running.receive("MUG", 7, SOLD_ELSEWHERE)
        await running.sell("TEE", "cart-1")
        (event,) = await take(events, 1)
    assert (event.sku, event.id) == ("TEE", snapshot["cursor"] + 1)


async def test_a_reader_goes_on_where_it_was_cut_off(running: Listening) -> None:
    """Last-Event-ID, which a browser sends by itself, wins over the cursor in the address."""
    snapshot = await running.snapshot()
    async with running.stream(snapshot["cursor"]) as events:
        await running.sell("MUG", "cart-1")
        (seen,) = await take(events, 1)
    for number in range(2, 5):
        await running.sell(SKUS[number % 2], f"cart-{number}")
        await running.snapshot()
    header = {"last-event-id": str(seen.id)}
    async with running.stream(snapshot["cursor"], header) as events:
        missed = await take(events, 3)
    assert [event.id for event in missed] == [seen.id + 1, seen.id + 2, seen.id + 3]
    async with running.stream(snapshot["cursor"]) as events:
        assert await take(events, 4) == [seen, *missed]


async def test_a_restart_and_another_process_continue_the_same_numbers(
    redis_url: str, database_url: str
) -> None:
    """Events that no process was there to make are made, coalesced, by the next one that has a reader."""
    async with listening(redis_url, database_url) as first:
        await first.set_up(*SKUS)
        cursor = (await first.snapshot())["cursor"]
        async with first.stream(cursor) as events:
            await first.sell("MUG", "cart-1")
            (seen,) = await take(events, 1)
        for number in range(2, 6):
            await first.sell("TEE", f"cart-{number}")
    async with (
        listening(redis_url, database_url) as second,
        listening(redis_url, database_url) as third,
        second.stream(seen.id) as events,
        third.stream(seen.id) as same_events,
    ):
        (coalesced,) = await take(events, 1)
        assert (coalesced.id, coalesced.sku, coalesced.available) == (seen.id + 1, "TEE", 96)
        await asyncio.gather(
            *(
                service.sell(sku, f"{name}-{sku}-{number}")
                for name, service in (("second", second), ("third", third))
                for sku in SKUS
                for number in range(10)
            )
        )
        one = await until_figures(events, {"MUG": 79, "TEE": 76})
        other = await until_figures(same_events, {"MUG": 79, "TEE": 76})
        assert other == [coalesced, *one]
        assert [event.id for event in other] == list(range(seen.id + 1, other[-1].id + 1))


async def until_figures(events: AsyncIterator[Event], wanted: dict[str, int]) -> list[Event]:
    """Read until the figures are these."""
    seen: list[Event] = []
    figures: dict[str, int] = {}
    while figures != wanted:
        seen += await take(events, 1)
        figures[seen[-1].sku] = seen[-1].available
    return seen


async def test_a_quiet_process_tells_within_a_second_what_another_one_sold(
    redis_url: str, database_url: str
) -> None:
    """A reader of a process that sells nothing hears in time of what the others sell."""
    async with (
        listening(redis_url, database_url) as selling,
        listening(redis_url, database_url) as quiet,
    ):
        await selling.set_up(*SKUS)
        await soon(lambda: CHANNEL in quiet.service.figures.channels)
        cursor = (await quiet.snapshot())["cursor"]
        async with quiet.stream(cursor) as events:
            await selling.sell("MUG", "cart-1")
            sold_at = time.monotonic()
            (event,) = await take(events, 1)
            assert time.monotonic() - sold_at < 1.0
        assert (event.sku, event.available) == ("MUG", 99)


async def test_a_channel_that_sources_from_elsewhere_tells_every_figure_that_changed(
    running: Listening,
) -> None:
    """Setting a channel's locations anew publishes what that changed, each with a newer version."""
    await running.receive("TEE", 7, SOLD_ELSEWHERE)
    snapshot = await running.snapshot()
    known = {item["sku"]: item["version"] for item in snapshot["items"]}
    async with running.stream(snapshot["cursor"]) as events:
        locations = {"locations": [SOLD_ELSEWHERE]}
        await running.client.put(f"/v1/channels/{CHANNEL}", json=locations)
        changed = await take(events, 2)
        assert {event.sku: event.available for event in changed} == {"MUG": 0, "TEE": 7}
        assert all(event.version > known[event.sku] for event in changed)
        await running.receive("MUG", 3, SOLD_ELSEWHERE)
        (event,) = await take(events, 1)
        assert (event.sku, event.available) == ("MUG", 3)


async def test_a_new_sku_is_an_event(running: Listening) -> None:
    """A SKU that is created while somebody reads is told, with its figure of zero."""
    snapshot = await running.snapshot()
    async with running.stream(snapshot["cursor"]) as events:
        await running.client.put("/v1/skus/POSTER", json={})
        (event,) = await take(events, 1)
    assert (event.sku, event.available) == ("POSTER", 0)


async def test_a_cursor_is_old_enough_and_not_too_old(
    running: Listening, database_url: str
) -> None:
    """A pruned cursor is 410 and one from the future is 400; what was not pruned can still be read."""
    snapshot = await running.snapshot()
    for number in range(3):
        await running.sell("MUG", f"cart-{number}")
        await running.snapshot()
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        await pool.execute(
            "UPDATE channel_delta SET created_at = now() - interval '4 days' WHERE id < $1",
            snapshot["cursor"] + 3,
        )
        assert await Pruning(DeltaStore(pool)).run_once() == 2
        assert await Pruning(DeltaStore(pool)).run_once() == 0
    begin = f"{CHANNEL}/deltas?cursor="
    assert await statuses(
        running,
        f"{begin}{snapshot['cursor']}",
        f"{begin}{snapshot['cursor'] + 4}",
        f"{begin}x",
        f"{begin}-1",
        f"{CHANNEL}/deltas",
        "nowhere/deltas?cursor=0",
        "nowhere/snapshot",
    ) == [
        (410, "cursor-expired"),
        (400, "invalid-request"),
        (400, "invalid-request"),
        (400, "invalid-request"),
        (400, "invalid-request"),
        (422, "unknown-channel"),
        (422, "unknown-channel"),
    ]
    async with running.stream(snapshot["cursor"] + 2) as events:
        (event,) = await take(events, 1)
    assert event.available == 97


async def test_a_key_reads_only_what_it_may(running: Listening) -> None:
    """Deltas take a key that may read, and for its own channels only."""
    unread = await running.service.keys.add("seller", ["reserve"], [])
    bound = await running.service.keys.add("store", ["read"], [OTHER_CHANNEL])
    addresses = (f"/v1/channels/{CHANNEL}/snapshot", f"/v1/channels/{CHANNEL}/deltas?cursor=0")

    async def answered(text: str, *addresses: str) -> set[int]:
        headers = {"authorization": f"Bearer {text}"}
        return {
            (await running.client.get(address, headers=headers)).status_code
            for address in addresses
        }

    async def allowed() -> bool:
        return await answered(bound.text, f"/v1/channels/{OTHER_CHANNEL}/snapshot") == {200}

    await soon(allowed)
    assert await answered(bound.text, *addresses) == {403}
    assert await answered(unread.text, *addresses) == {403}
    assert await answered("nobody", *addresses) == {401}


async def test_a_channel_that_nobody_reads_costs_nothing(
    running: Listening, database_url: str
) -> None:
    """Without a reader nothing is written, and the feed has no follower more."""
    await running.snapshot()
    await soon(lambda: len(running.service.sources[0].feed._followers) == 1)
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        before = await pool.fetchrow("SELECT * FROM channel_head")
        await running.sell("MUG", "cart-1")
        await running.client.get(f"/v1/availability?channel={CHANNEL}&sku=MUG")
        assert await pool.fetchrow("SELECT * FROM channel_head") == before
    assert (await running.snapshot())["items"][0]["available"] == 99
    assert SOLD_FROM in running.service.figures.locations


async def test_a_service_that_stops_ends_its_streams(redis_url: str, database_url: str) -> None:
    """Readers do not keep a service from stopping."""
    async with listening(redis_url, database_url) as started:
        await started.set_up("MUG")
        cursor = (await started.snapshot())["cursor"]
        stream = started.stream(cursor)
        await stream.__aenter__()
        stopping_at = time.monotonic()
    assert time.monotonic() - stopping_at < 10.0
    await stream.__aexit__(None, None, None)
