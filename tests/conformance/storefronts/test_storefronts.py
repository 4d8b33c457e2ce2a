"""What every storefront adapter must do, whatever it speaks."""

import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from conformance.storefronts.adapters import Connect
from e2e.running import free_port
from shopfront import Reply, Shopfront

from service.storefronts import webhook
from service.storefronts.port import Delivered, Gone, PushedFigure, Retry, Storefront

FIGURE = PushedFigure("web", "TEE/ü", 3, 17, 1_763_726_400_123)


async def test_a_success_is_delivered(storefront: Storefront, shop: Shopfront) -> None:
    """An answer of 200 to 299 means that the storefront has the figure."""
    for status in (200, 201, 204, 299):
        shop.reply = lambda _request, status=status: Reply(status)
        assert await storefront.push(FIGURE) == Delivered()
    assert len(shop.requests) == 4


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 409, 429, 500, 503])
async def test_any_other_answer_is_tried_again(
    storefront: Storefront, shop: Shopfront, status: int
) -> None:
    """Redirects are not followed, and no other answer counts as delivered; nothing is sent twice in one call."""
    elsewhere = (("location", shop.url + "/elsewhere"),)
    shop.reply = lambda _request: Reply(status, elsewhere, b"a secret of the storefront")
    result = await storefront.push(FIGURE)
    assert isinstance(result, Retry)
    assert result.after_seconds is None
    assert "secret" not in result.reason
    assert [request.path for request in shop.requests] == ["/figures"]


async def test_gone_ends_it(storefront: Storefront, shop: Shopfront) -> None:
    """An answer of 410 means that the storefront wants no more."""
    shop.reply = lambda _request: Reply(410)
    assert isinstance(await storefront.push(FIGURE), Gone)


@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_heard(storefront: Storefront, shop: Shopfront, status: int) -> None:
    """Seconds and dates are both understood, nonsense is not, and nobody is silenced for years."""
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    for text, least, most in (("7", 7, 7), (in_a_minute, 50, 60), ("9" * 30, 86_400, 86_400)):
        shop.reply = lambda _request, text=text: Reply(status, (("retry-after", text),))
        result = await storefront.push(FIGURE)
        assert isinstance(result, Retry)
        assert result.after_seconds is not None
        assert least <= result.after_seconds <= most
    shop.reply = lambda _request: Reply(status, (("retry-after", "soon"),))
    assert (await storefront.push(FIGURE)) == Retry(f"It answered {status}.")


async def test_a_storefront_that_is_not_there_is_tried_again(connect: Connect) -> None:
    """A refused connection is a result, not an exception."""
    storefront = connect(f"http://127.0.0.1:{free_port()}/")
    assert isinstance(await storefront.push(FIGURE), Retry)
    await storefront.close()


async def test_a_storefront_that_never_answers_is_left(
    storefront: Storefront, shop: Shopfront, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push ends within its bound of time."""
    monkeypatch.setattr(webhook, "PUSH_SECONDS_MAX", 0.1)
    never = asyncio.Event()
    shop.reply = lambda _request: Reply(until=never)
    async with asyncio.timeout(5.0):
        assert isinstance(await storefront.push(FIGURE), Retry)
    never.set()


async def test_an_answer_without_end_is_not_read(storefront: Storefront, shop: Shopfront) -> None:
    """Of a long answer no more than a part is read."""
    shop.reply = lambda _request: Reply(200, body=b"x" * 50_000_000)
    async with asyncio.timeout(5.0):
        assert await storefront.push(FIGURE) == Delivered()


async def test_a_repeat_tells_the_same(storefront: Storefront, shop: Shopfront) -> None:
    """A figure that is pushed again can be recognised, and one of a newer version cannot be mistaken for it."""
    for version in (17, 17, 18):
        await storefront.push(PushedFigure("web", "TEE/ü", 3, version, 1_763_726_400_123))
    first, repeat, newer = shop.requests
    assert first.body == repeat.body
    assert first.headers["webhook-id"] == repeat.headers["webhook-id"]
    assert first.headers["webhook-id"] != newer.headers["webhook-id"]
