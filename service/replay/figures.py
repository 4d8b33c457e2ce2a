"""Brings the figures over HTTP to an audit."""

from allocation.audit import Audit
from allocation.recount import Figures
from service.api.schemas import PoolAnswer
from service.replay.calling import Service
from service.replay.selling import each


async def compare_over_http(service: Service, audit: Audit, workers: int) -> None:
    """Add to the audit what `GET /v1/stock` tells otherwise of any SKU."""

    async def compare(sku: str) -> None:
        stock = await service.stock(sku)
        found = {pool.location: _figures(pool) for pool in stock.locations}
        nonzero = {location: figures for location, figures in found.items() if figures != Figures()}
        audit.compare("http", sku, stock.version, nonzero)
        for pool in stock.locations:
            counted = audit.figures[sku].get(pool.location, Figures())
            if pool.available != counted.available:
                audit.add(
                    sku, "http", f"{pool.location}: available", counted.available, pool.available
                )

    await each(sorted(audit.figures), workers, compare)


def _figures(pool: PoolAnswer) -> Figures:
    return Figures(
        pool.on_hand,
        pool.unavailable.damaged,
        pool.unavailable.quality_control,
        pool.safety_stock,
        pool.reserved,
        pool.committed,
        tuple(
            sorted(
                (use.channel, use.reserved, use.committed)
                for use in pool.channels
                if use.reserved or use.committed
            )
        ),
    )
