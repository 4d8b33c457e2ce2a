"""Sells a history: many carts at a time, in the file's order, those of one customer one by one.

A cart is reserved whole under its invoice number. Where stock is short the shopper takes what there
is: the same cart again, with `partial`, under a key of its own. What was held is confirmed and
shipped. A return goes to the customer's latest sale of the SKU that still has units to return;
where none is known it is a plain return.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from service.api.schemas import MOVEMENT_LINES_MAX, LineAnswer, ReservationAnswer
from service.replay.calling import HoldLost, Refused, Service
from service.replay.carts import Cart, History
from service.replay.opening_stock import LOCATIONS, opening_lines, sourcing_orders

Item = TypeVar("Item")

# Other carts took the units between the refusal and the second attempt.
TAKEN_MEANWHILE = "taken meanwhile"
HOLD_LOST = "hold lost"


class Sales(Struct):
    """What became of the carts; every replayed row is in exactly one of the counts of rows."""

    carts: Counter[str] = msgspec.field(default_factory=Counter[str])
    rows: Counter[str] = msgspec.field(default_factory=Counter[str])
    units: Counter[str] = msgspec.field(default_factory=Counter[str])
    lines_refused: Counter[str] = msgspec.field(default_factory=Counter[str])
    units_refused: Counter[str] = msgspec.field(default_factory=Counter[str])
    reserve_seconds: list[float] = msgspec.field(default_factory=list[float])


class _Sold(Struct):
    """Units of one SKU that one customer has and may bring back."""

    reservation_id: str
    location: str
    units: int


async def each(
    items: Iterable[Item], workers: int, work: Callable[[Item], Awaitable[None]]
) -> None:
    """Work on every item, on so many at a time, begun in order."""
    waiting = iter(items)

    async def work_on() -> None:
        for item in waiting:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work_on())


async def open_shop(service: Service, history: History, span: str, workers: int) -> None:
    """Create locations, channels and SKUs, and receive the opening stock."""
    for code in LOCATIONS:
        await service.configure("locations", code, {})
    for code, locations in sourcing_orders(history.channels).items():
        body = {"name": history.channels[code], "locations": locations}
        await service.configure("channels", code, body)
    await each(sorted(history.skus), workers, lambda sku: service.configure("skus", sku, {}))
    lines = [msgspec.to_builtins(line) for line in opening_lines(history.skus)]
    for first in range(0, len(lines), MOVEMENT_LINES_MAX):
        part = lines[first : first + MOVEMENT_LINES_MAX]
        await service.move(f"opening:{span}:{first}", "receipt", part)


class Shop:
    """Sells carts and takes returns, and keeps count."""

    def __init__(self, service: Service) -> None:
        self.sales = Sales()
        self._service = service
        self._turns: dict[str, asyncio.Lock] = {}
        self._sold: dict[tuple[str, str], list[_Sold]] = {}

    async def serve(self, cart: Cart) -> None:
        """Sell one cart or take one return, after what the same customer did before."""
        async with self._turn(cart.customer):
            if cart.cancellation:
                await self._take_back(cart)
            else:
                await self._sell(cart)

    def _turn(self, customer: str) -> AbstractAsyncContextManager[None]:
        if not customer:
            return nullcontext()
        return self._turns.setdefault(customer, asyncio.Lock())

    async def _sell(self, cart: Cart) -> None:
        wanted = {sku: sum(quantities) for sku, quantities in cart.lines.items()}
        limits: dict[str, str] = {}
        answer = await self._reserve(cart.key, cart.channel, wanted, partial=False)
        if isinstance(answer, Refused):
            limits = {lack.sku: lack.limited_by for lack in answer.shortages}
            key = f"{cart.key}-partial"
            answer = await self._reserve(key, cart.channel, wanted, partial=True)
        held: list[LineAnswer] = []
        if not isinstance(answer, Refused):
            lost = await self._service.confirm(answer.reservation_id, cart.key)
            if isinstance(lost, HoldLost):
                limits = dict.fromkeys(wanted, HOLD_LOST)
            else:
                held = answer.lines
                await self._ship(cart, answer)
        self._count_sale(cart, wanted, held, limits)

    async def _reserve(
        self, key: str, channel: str, wanted: dict[str, int], *, partial: bool
    ) -> ReservationAnswer | Refused:
        begun = time.perf_counter()
        answer = await self._service.reserve(key, channel, wanted, partial=partial)
        self.sales.reserve_seconds.append(time.perf_counter() - begun)
        return answer

    async def _ship(self, cart: Cart, reservation: ReservationAnswer) -> None:
        lines: list[dict[str, Any]] = [msgspec.to_builtins(line) for line in reservation.lines]
        reservation_id = reservation.reservation_id
        await self._service.move(f"ship:{reservation_id}", "shipment", lines, reservation_id)
        if cart.customer:
            for line in reservation.lines:
                sold = _Sold(reservation_id, line.location, line.quantity)
                self._sold.setdefault((cart.customer, line.sku), []).append(sold)

    def _count_sale(
        self, cart: Cart, wanted: dict[str, int], held: list[LineAnswer], limits: dict[str, str]
    ) -> None:
        sales = self.sales
        got: Counter[str] = Counter()
        for line in held:
            got[line.sku] += line.quantity
        for sku, quantities in cart.lines.items():
            missing = wanted[sku] - got[sku]
            if missing:
                reason = limits.get(sku, TAKEN_MEANWHILE)
                sales.lines_refused[reason] += 1
                sales.units_refused[reason] += missing
            for outcome in _row_outcomes(quantities, got[sku]):
                sales.rows[outcome] += 1
        sales.units["sold"] += got.total()
        outcome = "sold whole" if got == wanted else "sold in part" if held else "refused"
        sales.carts[outcome] += 1

    async def _take_back(self, cart: Cart) -> None:
        """Return what is known to its order, and what is not known to the first location of all."""
        known: dict[str, list[dict[str, Any]]] = {}
        plain: list[dict[str, Any]] = []
        for sku, quantities in cart.lines.items():
            units = sum(quantities)
            for sold, returned in self._returnable(cart.customer, sku, units):
                line = {"sku": sku, "location": sold.location, "quantity": returned}
                known.setdefault(sold.reservation_id, []).append(line)
                units -= returned
                self.sales.units["returned to their order"] += returned
            if units:
                plain.append({"sku": sku, "location": LOCATIONS[0], "quantity": units})
                self.sales.units["returned, order unknown"] += units
        for reservation_id, lines in known.items():
            event_id = f"return:{cart.key}:{reservation_id}"
            await self._service.move(event_id, "return", lines, reservation_id)
        if plain:
            await self._service.move(f"return:{cart.key}", "return", plain)
        self.sales.rows["returned"] += cart.rows
        self.sales.carts["returned"] += 1

    def _returnable(self, customer: str, sku: str, units: int) -> Iterator[tuple[_Sold, int]]:
        """Take units off the customer's sales of a SKU, the latest first."""
        sales = self._sold.get((customer, sku), []) if customer else []
        while sales and units:
            latest = sales[-1]
            returned = min(units, latest.units)
            latest.units -= returned
            units -= returned
            if latest.units == 0:
                sales.pop()
            yield latest, returned


def _row_outcomes(quantities: list[int], got: int) -> Iterator[str]:
    """Say of each row of one SKU, the first row first, whether the units that were had reach."""
    for quantity in quantities:
        units = min(quantity, got)
        got -= units
        yield "sold" if units == quantity else "sold in part" if units else "refused"
