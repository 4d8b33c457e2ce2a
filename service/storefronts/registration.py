"""Takes storefronts on: checks the address and the secret, stores them, and lets the pushing begin."""

import asyncio
import socket
from collections.abc import Callable

import asyncpg
import httpx
from msgspec import Struct

from service.storefronts.addresses import AddressRefused, check_url, resolve
from service.storefronts.store import StorefrontStore
from service.storefronts.webhook import is_secret, make_secret

RESOLVE_SECONDS_MAX = 2.0


class Registered(Struct, frozen=True):
    """What came of a registration; `made_secret` is there once, where one was made."""

    created: bool
    made_secret: str | None


class Refused(Struct, frozen=True):
    """Why a storefront was not taken on."""

    reason: str


class Registration:
    """The storefronts as an operator sees them."""

    def __init__(
        self, store: StorefrontStore, wake_worker: Callable[[], None], *, allow_private: bool
    ) -> None:
        self._store, self._wake_worker = store, wake_worker
        self._allow_private = allow_private

    async def put(
        self, name: str, channel: str, url: str, secret: str | None
    ) -> Registered | Refused:
        """Create or replace a storefront; it hears every figure anew."""
        if secret is not None and not is_secret(secret):
            return Refused("secret must be whsec_ and 24 to 64 bytes in base64.")
        refused = await self._refuse_address(url)
        if refused is not None:
            return refused
        made = make_secret()
        created = await self._store.put(name, channel, url, made, secret)
        self._wake_worker()
        return Registered(created, made if created and secret is None else None)

    async def delete(self, name: str) -> bool:
        """Forget a storefront; False where there is none."""
        deleted = await self._store.delete(name)
        self._wake_worker()
        return deleted

    async def all(self, name: str | None = None) -> list[asyncpg.Record]:
        """List storefronts, or the one of a name."""
        return await self._store.all(name)

    async def _refuse_address(self, text: str) -> Refused | None:
        """Refuse early what would be refused at every push; what cannot be resolved now may be later."""
        try:
            url = httpx.URL(text)
            check_url(url, allow_private=self._allow_private)
            if not self._allow_private:
                async with asyncio.timeout(RESOLVE_SECONDS_MAX):
                    await resolve(url.host, url.port or 443, allow_private=False)
        except (httpx.InvalidURL, UnicodeError):
            return Refused("url is not an address.")
        except AddressRefused as refusal:
            return Refused(f"url: {refusal}")
        except (socket.gaierror, TimeoutError):
            return None
        return None
