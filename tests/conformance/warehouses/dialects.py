"""Every adapter, with what a warehouse of its kind would send; a new adapter adds itself here."""

import json
from collections.abc import Mapping
from typing import Protocol

from signing import signed_headers

from service.warehouses.adapters import ADAPTERS
from service.warehouses.port import Warehouse
from service.warehouses.sources import make_secret


class Dialect(Protocol):
    """One kind of warehouse system, as a sender."""

    name: str
    adapter: Warehouse

    def secret(self) -> str:
        """Make up a secret."""
        ...

    def receipt(self, units: Mapping[str, int]) -> bytes:
        """Write the body that says that units of SKUs have arrived at LONDON."""
        ...

    def headers(self, secret: str, delivery_id: str, body: bytes) -> dict[str, str]:
        """Sign a body."""
        ...


class CanonicalDialect:
    """Standard Webhooks around a movement."""

    name = "canonical"
    adapter = ADAPTERS["canonical"]

    def secret(self) -> str:
        return make_secret()

    def receipt(self, units: Mapping[str, int]) -> bytes:
        lines = [
            {"sku": sku, "location": "LONDON", "quantity": quantity}
            for sku, quantity in units.items()
        ]
        return json.dumps({"kind": "receipt", "lines": lines}).encode()

    def headers(self, secret: str, delivery_id: str, body: bytes) -> dict[str, str]:
        return signed_headers(secret, delivery_id, body)


DIALECTS: tuple[Dialect, ...] = (CanonicalDialect(),)
