"""Signs deliveries by the text of Standard Webhooks, without the library that the service uses."""

import base64
import hashlib
import hmac
import time
from collections.abc import Sequence


def signature(secret: str, delivery_id: str, timestamp: int | str, body: bytes) -> str:
    """Give one signature."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def signed_headers(
    secrets: str | Sequence[str], delivery_id: str, body: bytes, *, age_seconds: int = 0
) -> dict[str, str]:
    """Give the headers of a delivery that is signed with one secret, or with several."""
    listed = [secrets] if isinstance(secrets, str) else secrets
    timestamp = int(time.time()) - age_seconds
    return {
        "webhook-id": delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(
            signature(secret, delivery_id, timestamp, body) for secret in listed
        ),
    }
