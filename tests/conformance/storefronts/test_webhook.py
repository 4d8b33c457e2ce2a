"""The generic webhook: how it is signed, and which addresses it never connects to."""

import asyncio
import ipaddress
import json
import logging
import socket
from typing import Any

import httpx
import pytest
from conformance.storefronts.adapters import SECRET, connect_webhook
from shopfront import Shopfront
from signing import signature
from standardwebhooks import Webhook, WebhookVerificationError

from service.storefronts.addresses import AddressRefused, check_address, check_url
from service.storefronts.port import PushedFigure, Retry
from service.storefronts.webhook import WebhookStorefront, is_secret, make_secret

FIGURE = PushedFigure("web", "TEE/ü", 3, 17, 1_763_726_400_123)


async def test_a_push_is_signed_as_standard_webhooks_has_it(shop: Shopfront) -> None:
    """The library verifies it, an independent signature is the same, and any change spoils it."""
    storefront = connect_webhook(shop.url)
    await storefront.push(FIGURE)
    await storefront.close()
    (request,) = shop.requests
    assert json.loads(request.body) == {
        "type": "stock.updated",
        "timestamp": "2025-11-21T12:00:00.123Z",
        "data": {"channel": "web", "sku": "TEE/ü", "available": 3, "version": 17},
    }
    headers = {name: value for name, value in request.headers.items() if name.startswith("webhook")}
    Webhook(SECRET).verify(request.body, headers)
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    expected = signature(SECRET, message_id, timestamp, request.body)
    assert headers["webhook-signature"] == expected
    with pytest.raises(WebhookVerificationError):
        Webhook(make_secret()).verify(request.body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(request.body + b" ", headers)


def test_a_secret_is_long_enough() -> None:
    """Secrets have the mark and 24 to 64 bytes."""
    assert is_secret(make_secret())
    assert is_secret(SECRET)
    for text in (
        "",
        "whsec_",
        "whsec_c2hvcnQ=",
        make_secret()[6:],
        "whsec_" + "A" * 200,
        "whsec_ü",
    ):
        assert not is_secret(text)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https://example.com:22/",
        "https://user:word@example.com/",
        "https://user@example.com/",
        "https:///path",
        "https://example.com/#part",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
    ],
)
def test_an_address_that_no_storefront_can_have_is_refused(url: str) -> None:
    """Only https, without a user name, on the ports of https, and never a private address."""
    with pytest.raises(AddressRefused):
        check_url(httpx.URL(url), allow_private=False)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104 - it must not be connected to
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "192.0.2.1",
        "198.18.0.1",
        "203.0.113.7",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:1::1",
        "ff02::1",
        "fec0::1",
        "2001:db8::1",
    ],
)
def test_an_address_that_is_not_public_is_refused(text: str) -> None:
    """Loopback, private, shared, link-local and reserved addresses, and those that carry one inside."""
    with pytest.raises(AddressRefused):
        check_address(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111"])
def test_a_public_address_is_taken(text: str) -> None:
    """The addresses of ordinary storefronts pass."""
    check_address(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "host", ["localhost", "localhost.", "0x7f.1", "2130706433", "127.1", "017700000001"]
)
async def test_a_name_that_leads_inside_is_not_connected_to(shop: Shopfront, host: str) -> None:
    """Names are resolved before they are judged, in every spelling."""
    storefront = WebhookStorefront("shop", f"https://{host}/", SECRET, 1, allow_private=False)
    result = await storefront.push(FIGURE)
    assert isinstance(result, Retry)
    assert shop.connections == 0
    await storefront.close()


async def test_a_name_with_one_private_address_is_not_connected_to(
    shop: Shopfront, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every address of a name is judged, and a name is resolved once: what was judged is what is used."""
    answers = [["8.8.8.8", "127.0.0.1"], ["127.0.0.1"]]
    asked: list[str] = []

    async def resolve(host: str, port: int, **_: object) -> list[tuple[Any, ...]]:
        asked.append(host)
        found = answers.pop(0)
        await asyncio.sleep(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in found]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    url = f"https://rebinding.test:{8443}/"
    storefront = WebhookStorefront("shop", url, SECRET, 1, allow_private=False)
    result = await storefront.push(FIGURE)
    assert result == Retry("It leads to an address that is not public.")
    assert asked == ["rebinding.test"]
    assert shop.connections == 0
    await storefront.close()


async def test_nothing_secret_is_logged(shop: Shopfront, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the secret nor a signature gets into a log, even at the lowest level."""
    caplog.set_level(logging.DEBUG)
    storefront = connect_webhook(shop.url)
    await storefront.push(FIGURE)
    await storefront.close()
    (request,) = shop.requests
    assert SECRET not in caplog.text
    assert request.headers["webhook-signature"] not in caplog.text
