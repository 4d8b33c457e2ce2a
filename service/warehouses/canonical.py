"""Our own dialect: Standard Webhooks signatures around one movement in the shape of the API.

The body is that of POST /v1/movements, where `source` may be left out, since the address has it, and
`event_id` too, since the delivery has an id.
"""

import re
from collections.abc import Mapping, Sequence

import msgspec
from standardwebhooks import Webhook, WebhookVerificationError

from service.api.schemas import MovementRequest
from service.warehouses.port import Translated, Untranslatable, Unverified, Verified

# A point in the id would let id and timestamp be cut apart in two ways under one signature.
_ID = re.compile(r"[!-\-/-~]{1,255}")
# The library would read a fraction, a sign or spaces as well, none of which the signature covers.
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
# 32 bytes in base64, written in the one way in which the bits that nobody reads are zero.
_SIGNATURE = re.compile(r"v1,[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=")
SIGNATURES_CHARACTERS_MAX = 1_024
_UNVERIFIED = Unverified("No secret of the source gives one of the signatures.")


class Canonical:
    """The adapter."""

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str]
    ) -> Verified | Unverified:
        """Check the signature as Standard Webhooks has it, within five minutes of its time."""
        delivery_id = headers.get("webhook-id", "")
        timestamp = headers.get("webhook-timestamp", "")
        listed = headers.get("webhook-signature", "")
        if not (_ID.fullmatch(delivery_id) and _TIMESTAMP.fullmatch(timestamp)):
            return _UNVERIFIED
        if len(listed) > SIGNATURES_CHARACTERS_MAX:
            return _UNVERIFIED
        # Other versions are for others, and what is malformed must not hide a good one beside it.
        signatures = " ".join(text for text in listed.split(" ") if _SIGNATURE.fullmatch(text))
        checked = {
            "webhook-id": delivery_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": signatures,
        }
        # Every secret is tried, so that the time taken does not tell which one was right.
        verdicts = [_signs(secret, body, checked) for secret in secrets]
        if any(verdicts):
            return Verified(delivery_id)
        return _UNVERIFIED

    def translate(self, source: str, delivery_id: str, body: bytes) -> Translated | Untranslatable:
        """Read the one movement."""
        try:
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            named = msgspec.json.decode(fields.pop("source", msgspec.Raw(b'""')), type=str)
            if named not in {"", source}:
                return Untranslatable(f"source: the body names {named!r}, the address {source!r}.")
            fields["source"] = msgspec.Raw(msgspec.json.encode(source))
            fields.setdefault("event_id", msgspec.Raw(msgspec.json.encode(delivery_id)))
            movement = msgspec.json.decode(msgspec.json.encode(fields), type=MovementRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Untranslatable(f"The body is not a movement: {error}.")
        return Translated((movement,))


def _signs(secret: str, body: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(secret).verify(body, headers, json_parse=False)
    except (WebhookVerificationError, UnicodeDecodeError):
        return False
    return True
