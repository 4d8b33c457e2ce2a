"""API keys for the contract tests, made in the database before the service starts."""

from typing import NamedTuple

import asyncpg

from service.keys import KeyStore


class Keys(NamedTuple):
    """Keys with one scope each, one that is bound to a channel, and one that was revoked."""

    reserve: str
    read: str
    movements: str
    kiosk: str
    revoked: str


async def make_keys(database_url: str) -> Keys:
    """Make the keys; a service that starts later knows them at once."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=1) as pool:
        store = KeyStore(pool)
        made = [await store.add(name, [name], []) for name in ("reserve", "read", "movements")]
        made.append(await store.add("kiosk", ["reserve"], ["kiosk"]))
        made.append(await store.add("revoked", ["admin"], []))
        assert await store.revoke(made[-1].key_id)
    return Keys(*(key.text for key in made))
