"""Every adapter, connected to a real server."""

from collections.abc import AsyncIterator

import pytest
from conformance.storefronts.adapters import ADAPTERS, Connect
from shopfront import Shopfront, shopfront

from service.storefronts.port import Storefront


@pytest.fixture(params=ADAPTERS)
def connect(request: pytest.FixtureRequest) -> Connect:
    """Give the way to connect one adapter."""
    return ADAPTERS[request.param]


@pytest.fixture
async def shop() -> AsyncIterator[Shopfront]:
    """Give the server that the adapter pushes to."""
    async with shopfront() as opened:
        yield opened


@pytest.fixture
async def storefront(connect: Connect, shop: Shopfront) -> AsyncIterator[Storefront]:
    """Give one adapter, connected."""
    connected = connect(shop.url)
    yield connected
    await connected.close()
