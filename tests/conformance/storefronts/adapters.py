"""Every storefront adapter: one joins the conformance suite by a line in ADAPTERS."""

from collections.abc import Callable

from service.storefronts.port import Storefront
from service.storefronts.webhook import WebhookStorefront

# Published with Standard Webhooks (MIT).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105

Connect = Callable[[str], Storefront]


def connect_webhook(url: str) -> Storefront:
    return WebhookStorefront("shop", url, SECRET, 8, allow_private=True)


ADAPTERS: dict[str, Connect] = {"webhook": connect_webhook}
