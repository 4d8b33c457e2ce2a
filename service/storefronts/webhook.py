"""The generic storefront: one signed POST for each figure, as Standard Webhooks has it."""

import asyncio
import base64
import binascii
import hashlib
import secrets
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx
import msgspec
from standardwebhooks import Webhook

from service.storefronts.addresses import AddressRefused, CheckedTransport
from service.storefronts.port import (
    PUSH_SECONDS_MAX,
    Delivered,
    Gone,
    PushedFigure,
    PushResult,
    Retry,
)

CONNECT_SECONDS_MAX = 1.0
RESPONSE_BYTES_MAX = 64 * 1024
RETRY_AFTER_SECONDS_MAX = 86_400.0
SECRET_PREFIX = "whsec_"  # noqa: S105 - the mark of a secret, not one
SECRET_BYTES = 32
SECRET_BYTES_MIN, SECRET_BYTES_MAX = 24, 64
_GONE = 410
_encode = msgspec.json.Encoder().encode


def make_secret() -> str:
    """Make up a secret."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def is_secret(text: str) -> bool:
    """Say whether a text is a secret as Standard Webhooks has it."""
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(SECRET_PREFIX) and SECRET_BYTES_MIN <= len(key) <= SECRET_BYTES_MAX


class WebhookStorefront:
    """One storefront behind one address."""

    def __init__(
        self, name: str, url: str, secret: str, concurrency: int, *, allow_private: bool
    ) -> None:
        self._name, self._url = name, url
        self._webhook = Webhook(secret)
        self._client = httpx.AsyncClient(
            transport=CheckedTransport(concurrency, allow_private=allow_private),
            timeout=httpx.Timeout(PUSH_SECONDS_MAX, connect=CONNECT_SECONDS_MAX),
            follow_redirects=False,
            trust_env=False,
            headers={"user-agent": "Ringfence"},
        )

    async def push(self, figure: PushedFigure) -> PushResult:
        """Send one figure, signed anew; the id of the message is the same at every attempt."""
        body = _body(figure)
        try:
            async with (
                asyncio.timeout(PUSH_SECONDS_MAX),
                self._client.stream(
                    "POST", self._url, content=body, headers=self._headers(figure, body)
                ) as response,
            ):
                await _read_some(response)
        except TimeoutError:
            return Retry(f"There was no answer within {PUSH_SECONDS_MAX:.0f} s.")
        except AddressRefused as refusal:
            return Retry(str(refusal))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as fault:
            return Retry(f"It could not be reached: {type(fault).__name__}.")
        return _result(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _headers(self, figure: PushedFigure, body: bytes) -> dict[str, str]:
        subject = "\x1f".join((self._name, figure.channel, figure.sku, str(figure.version)))
        message_id = f"msg_{hashlib.sha256(subject.encode()).hexdigest()[:32]}"
        now = datetime.now(UTC)
        return {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(message_id, now, body.decode()),
        }


def _body(figure: PushedFigure) -> bytes:
    changed_at = datetime.fromtimestamp(figure.changed_at_ms / 1000, UTC)
    return _encode(
        {
            "type": "stock.updated",
            "timestamp": changed_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "data": {
                "channel": figure.channel,
                "sku": figure.sku,
                "available": figure.available,
                "version": figure.version,
            },
        }
    )


async def _read_some(response: httpx.Response) -> None:
    """Read a short answer to its end, so that the connection can be used again; leave a long one."""
    read = 0
    async for part in response.aiter_raw():
        read += len(part)
        if read > RESPONSE_BYTES_MAX:
            return


def _result(response: httpx.Response) -> PushResult:
    if response.is_success:
        return Delivered()
    reason = f"It answered {response.status_code}."
    if response.status_code == _GONE:
        return Gone(reason)
    return Retry(reason, _retry_after_seconds(response.headers.get("retry-after", "")))


def _retry_after_seconds(text: str) -> float | None:
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return min(RETRY_AFTER_SECONDS_MAX, max(0.0, seconds))
