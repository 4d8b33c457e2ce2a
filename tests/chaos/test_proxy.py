"""The proxy does to a connection what the plan says, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from chaos.proxy import BOTH_WAYS, Link, Marks, Way
from chaos.trace import TRACE_NAME

WAIT_SECONDS = 10.0
# Long enough that what may not pass would have passed.
QUIET_SECONDS = 0.1
MARKS = Marks(b"append", b"", b"done")


class Store:
    """A server that remembers what it was told, and answers each line."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(b"done " + line)
        writer.close()


class Caller:
    """A client of the store, by way of the link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def at(cls, link: Link) -> "Caller":
        return cls(*await asyncio.open_connection("127.0.0.1", link.port))

    def say(self, line: bytes) -> None:
        self.writer.write(line)

    async def hear(self) -> bytes:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.reader.readline()

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(QUIET_SECONDS):
                return await self.reader.readline() == b""
        except TimeoutError:
            return True

    async def is_reset(self) -> bool:
        try:
            return await self.hear() == b""
        except ConnectionError:
            return True


@pytest.fixture
def store() -> Store:
    """Give a store that has heard nothing yet."""
    return Store()


@pytest.fixture
async def link(store: Store) -> AsyncIterator[Link]:
    """Give a link to the store."""
    server = await asyncio.start_server(store.serve, "127.0.0.1", 0)
    opened = await Link("service>store", server.sockets[0].getsockname()[1], MARKS).open()
    yield opened
    opened.close()
    server.close()
    # What was closed is let go in the loop's next rounds.
    await asyncio.sleep(QUIET_SECONDS)


@pytest.fixture
async def caller(link: Link) -> AsyncIterator[Caller]:
    """Give a client whose connection works."""
    opened = await Caller.at(link)
    opened.say(b"hello\n")
    assert await opened.hear() == b"done hello\n"
    yield opened
    opened.writer.close()


async def test_it_passes_everything_on(link: Link, caller: Caller) -> None:
    """Requests and replies pass unchanged and in order, also after a while of being slow."""
    link.latency_seconds = 0.05
    for number in range(5):
        caller.say(b"%d\n" % number)
    link.latency_seconds = 0.0
    caller.say(b"5\n")
    assert [await caller.hear() for _ in range(6)] == [b"done %d\n" % n for n in range(6)]


async def test_a_dropped_reply_was_to_something_done(
    store: Store, link: Link, caller: Caller
) -> None:
    """The store has done it, the service is told nothing and loses its connection."""
    dropping = asyncio.create_task(link.drop_next_reply(WAIT_SECONDS))
    await asyncio.sleep(0)
    caller.say(b"append 1\n")
    assert await dropping
    assert await caller.is_reset()
    assert store.heard[-1] == b"append 1\n"


async def test_only_replies_to_what_commits_are_dropped(link: Link, caller: Caller) -> None:
    """Where nothing is committed nothing is dropped."""
    dropping = asyncio.create_task(link.drop_next_reply(QUIET_SECONDS))
    await asyncio.sleep(0)
    caller.say(b"read\n")
    assert await caller.hear() == b"done read\n"
    assert not await dropping


async def test_a_request_arrives_twice(store: Store, link: Link, caller: Caller) -> None:
    """The second time over a connection that begins as the first did; the service hears one answer."""
    caller.say(b"hello\n")
    assert await caller.hear() == b"done hello\n"
    repeating = asyncio.create_task(link.repeat_next_request(WAIT_SECONDS))
    await asyncio.sleep(0)
    caller.say(b"append 1\n")
    assert await repeating
    assert await caller.hear() == b"done append 1\n"
    async with asyncio.timeout(WAIT_SECONDS):
        while store.heard.count(b"append 1\n") < 2:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.01)
    assert store.heard[: len(store.heard) // 2] * 2 == store.heard
    caller.say(b"append 2\n")
    assert await caller.hear() == b"done append 2\n"
    assert store.heard.count(b"append 2\n") == 1


@pytest.mark.parametrize("ways", [BOTH_WAYS, {Way.REQUESTS}, {Way.REPLIES}])
async def test_what_is_held_arrives_late(
    store: Store, link: Link, caller: Caller, ways: frozenset[Way]
) -> None:
    """A held request reaches the store when it is let go; a held reply follows a request that was done."""
    link.stop(frozenset(ways))
    caller.say(b"append 1\n")
    assert await caller.hears_nothing()
    assert (b"append 1\n" in store.heard) is (Way.REQUESTS not in ways)
    assert link.commits_in_flight == 1
    link.release()
    assert await caller.hear() == b"done append 1\n"
    assert link.commits_in_flight == 0


async def test_a_request_survives_its_sender(store: Store, link: Link, caller: Caller) -> None:
    """What was sent before the service gave up still arrives, as it does in a network."""
    link.stop(BOTH_WAYS)
    caller.say(b"append late\n")
    await caller.writer.drain()
    caller.writer.close()
    await caller.writer.wait_closed()
    await asyncio.sleep(QUIET_SECONDS)
    link.release()
    async with asyncio.timeout(WAIT_SECONDS):
        while b"append late\n" not in store.heard:  # noqa: ASYNC110 - the store tells nobody
            await asyncio.sleep(0.01)


async def test_a_cut_that_lost_something_ends_the_connection(link: Link, caller: Caller) -> None:
    """After a cut the connections over which nothing was lost go on, and the others are reset."""
    idle = await Caller.at(link)
    idle.say(b"hello\n")
    assert await idle.hear() == b"done hello\n"
    link.stop(BOTH_WAYS)
    caller.say(b"append 1\n")
    assert await caller.hears_nothing()
    link.heal()
    assert await caller.is_reset()
    idle.say(b"still here\n")
    assert await idle.hear() == b"done still here\n"
    idle.writer.close()


async def test_a_reset_ends_every_connection_and_no_later_one(link: Link, caller: Caller) -> None:
    """The service may connect again at once."""
    link.reset()
    assert await caller.is_reset()
    again = await Caller.at(link)
    again.say(b"hello\n")
    assert await again.hear() == b"done hello\n"
    again.writer.close()


async def test_what_was_done_to_a_connection_is_kept(
    link: Link, caller: Caller, tmp_path: Path
) -> None:
    """The trace tells of the connection, of the cut, of what was held then, and of the reset."""
    caller.say(b"append a\n")
    assert await caller.hear() == b"done append a\n"
    link.stop(frozenset({Way.REQUESTS}))
    caller.say(b"lost\n")
    assert await caller.hears_nothing()
    link.heal()
    assert await caller.is_reset()
    link.trace.write(tmp_path / TRACE_NAME, 0.0)
    told = [json.loads(line) for line in (tmp_path / TRACE_NAME).read_text().splitlines()]
    assert [event["what"] for event in told] == ["opens", "stops", "reset", "goes on"]
    assert told[1]["note"] == "requests"
    assert told[2]["requests_bytes"] == len(b"hello\nappend a\nlost\n")
    assert told[2]["replies_bytes"] == len(b"done hello\ndone append a\n")
    assert told[2]["held_bytes"] == len(b"lost\n")
