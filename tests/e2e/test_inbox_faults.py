"""What Postgres may do to a delivery that is about to be stored."""

import asyncio
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from chaos.proxy import LEDGER_MARKS, Link, Way

from allocation.errors import OutcomeUnknown
from service.engine import open_engine
from service.settings import Settings
from service.warehouses.inbox import Inbox

# The last words of a server that is shut down: severity, code and text; the connection ends a moment later.
LAST_WORDS = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0"
FATAL = b"E" + (len(LAST_WORDS) + 4).to_bytes(4, "big") + LAST_WORDS
ARRIVES_SECONDS = 0.1


async def test_a_connection_that_has_heard_the_end_leaves_the_outcome_open(
    database_url: str,
) -> None:
    """Between the last words of Postgres and the connection's end, a delivery gets the answer of an outage."""
    parts = urlsplit(database_url)
    link = await Link("service>postgres", parts.port or 0, LEDGER_MARKS).open()
    place = parts.netloc.replace(str(parts.port), str(link.port))
    url = urlunsplit(parts._replace(netloc=place))
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        inbox = Inbox(pool)
        assert await inbox.store("wms", "msg_1", b"{}")
        for pair in link.pairs:
            pair.streams[Way.REPLIES].feed(FATAL)
        await asyncio.sleep(ARRIVES_SECONDS)
        with pytest.raises(OutcomeUnknown):
            await inbox.store("wms", "msg_2", b"{}")
    link.close()
    await asyncio.sleep(ARRIVES_SECONDS)


async def test_what_is_stored_is_durable_whatever_the_default(
    redis_url: str, database_url: str
) -> None:
    """A database that commits asynchronously by default does not do so for the service."""
    operator = await asyncpg.connect(database_url)
    database = await operator.fetchval("SELECT quote_ident(current_database())")
    await operator.execute(f"ALTER DATABASE {database} SET synchronous_commit = off")
    await operator.close()
    async with open_engine(Settings(demo=False), redis_url, database_url) as engine:
        assert await engine.pool.fetchval("SHOW synchronous_commit") == "on"
