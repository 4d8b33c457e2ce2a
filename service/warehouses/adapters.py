"""The adapters by name, as `webhook_source` names them."""

from collections.abc import Mapping

from service.warehouses.canonical import Canonical
from service.warehouses.port import Warehouse

ADAPTERS: Mapping[str, Warehouse] = {"canonical": Canonical()}
