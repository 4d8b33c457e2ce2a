"""Stock: movements in, recorded orders, and every bucket out."""

import time
from datetime import datetime
from typing import Annotated

from litestar import Controller, Request, Response, get, post
from litestar.datastructures import State
from litestar.params import Parameter

from allocation.commands import CheckLines, Move, MovedLine, Movement, Order
from allocation.errors import NothingDone, OutcomeUnknown
from allocation.outcomes import Outcome
from allocation.ports import Decider
from service.api.answers import (
    NAME_OF_STATE,
    line_answers,
    oversold_answers,
    problem_of_refusal,
    stock_answer,
)
from service.api.guards import principal_of, requires
from service.api.identifiers import require_clean, require_path_safe
from service.api.problems import Problem
from service.api.reservations import fingerprint, order_reservation_id, wanted_lines
from service.api.schemas import (
    MOVEMENT_LINES_MAX,
    QUANTITY_MAX,
    MovementAnswer,
    MovementLine,
    MovementRequest,
    OrderAnswer,
    OrderRequest,
    StockAnswer,
)
from service.figures import Figures

# A call to the gate stays within a few milliseconds with this many lines. It must never change: a repeat of a
# movement finds its parts by their number.
LINES_PER_COMMAND = 100
CLOCK_SKEW_MS_MAX = 5 * 60 * 1000
# Between a source and its event id, in the key that both make; no id can have it.
_SEPARATOR = "\x1f"


class StockController(Controller):
    """What came, what left, what was counted, and what there is."""

    path = "/v1"
    tags = ("Stock",)

    @post("/movements", status_code=200, guards=[requires("movements")])
    async def move(self, data: MovementRequest, pipeline: Decider) -> MovementAnswer:
        """Apply a stock movement, once per source and event id."""
        return await apply_movement(pipeline, data)

    @post("/orders", status_code=201, guards=[requires("reserve")])
    async def record_order(
        self, request: Request[None, None, State], data: OrderRequest, pipeline: Decider
    ) -> Response[OrderAnswer]:
        """Record a sale that has already been made; says what it oversold."""
        if not principal_of(request).may_sell_on(data.channel):
            raise Problem("forbidden", "The key is for other channels.")
        require_clean("order_id", data.order_id)
        require_clean("channel", data.channel)
        wanted = wanted_lines(data.lines)
        reservation_id = order_reservation_id(data.channel, data.order_id)
        decision = await pipeline.submit(
            Order(
                reservation_id,
                fingerprint(data.channel, data.lines, data.order_id),
                data.channel,
                data.order_id,
                wanted,
            )
        )
        record = decision.record
        if record is None:
            raise problem_of_refusal(decision)
        answer = OrderAnswer(
            data.order_id,
            reservation_id,
            NAME_OF_STATE[record.state],
            record.channel,
            line_answers(record),
            oversold_answers(record.shortages),
        )
        replayed = decision.outcome is Outcome.REPLAYED
        return Response(
            answer,
            status_code=200 if replayed else 201,
            headers={"Idempotent-Replayed": "true"} if replayed else None,
        )

    @get("/stock/{sku:str}", guards=[requires("read")])
    async def stock(
        self, sku: Annotated[str, Parameter(description="The SKU.")], figures: Figures
    ) -> StockAnswer:
        """Show every bucket of a SKU at every location."""
        require_clean("sku", sku)
        stock = (await figures.read([sku]))[sku]
        if stock is None:
            raise Problem("unknown-sku", f"SKU {sku}.")
        return stock_answer(sku, stock)


async def apply_movement(
    pipeline: Decider, request: MovementRequest, arrived_at_ms: int = 0
) -> MovementAnswer:
    """Apply a movement whole. A long one goes in parts, each applied once, so that a repeat completes it.

    A movement that names no time happened when it arrived; `arrived_at_ms` 0 means that it arrives now.
    """
    for field, text in (("source", request.source), ("event_id", request.event_id)):
        require_clean(field, text)
    if request.reservation_id is not None:
        require_path_safe("reservation_id", request.reservation_id)
    if len(request.lines) > MOVEMENT_LINES_MAX:
        raise Problem("too-large", f"A movement may have {MOVEMENT_LINES_MAX} lines.")
    lines = _moved_lines(request)
    kind = Movement[request.kind.upper()]
    parts = [
        lines[first : first + LINES_PER_COMMAND]
        for first in range(0, len(lines), LINES_PER_COMMAND)
    ]
    if len(parts) > 1:
        await _check(pipeline, lines, kind)
    key = f"{request.source}{_SEPARATOR}{request.event_id}"
    # When it arrived is no part of the fingerprint: the same movement may arrive twice.
    at_ms = _occurred_at_ms(request, arrived_at_ms)
    commands = [
        Move(
            key if number == 0 else f"{key}{_SEPARATOR}{number}",
            fingerprint(request, number),
            int(kind),
            at_ms,
            request.reservation_id or "",
            tuple(part),
        )
        for number, part in enumerate(parts)
    ]
    applied = await _apply_in_turn(pipeline, commands)
    return MovementAnswer(
        applied, not applied, request.source, request.event_id, len(request.lines)
    )


async def _apply_in_turn(pipeline: Decider, commands: list[Move]) -> bool:
    """Apply the parts one after the other, so that checkouts are decided in between."""
    applied = False
    for number, command in enumerate(commands):
        try:
            decision = await pipeline.submit(command)
        except NothingDone:
            if number == 0:
                raise
            # Of this part nothing was done, but parts before it are applied.
            raise OutcomeUnknown from None
        if decision.outcome not in {Outcome.APPLIED, Outcome.DUPLICATE}:
            raise problem_of_refusal(decision)
        applied = applied or decision.outcome is Outcome.APPLIED
    return applied


async def _check(pipeline: Decider, lines: list[MovedLine], kind: Movement) -> None:
    """Refuse a movement in parts as a whole, before any part of it is applied."""
    for first in range(0, len(lines), LINES_PER_COMMAND):
        part = lines[first : first + LINES_PER_COMMAND]
        locations = {line.location for line in part}
        if kind is Movement.TRANSFER:
            locations |= {line.to for line in part}
        decision = await pipeline.submit(
            CheckLines(tuple(line.sku for line in part), tuple(sorted(locations)))
        )
        if decision.outcome is not Outcome.FOUND:
            raise problem_of_refusal(decision)


def _moved_lines(request: MovementRequest) -> list[MovedLine]:
    """Sum the lines of one SKU and place; two partial counts of one place are one count."""
    summed: dict[tuple[str, str, str, str], int] = {}
    for number, line in enumerate(request.lines):
        source, to = _source_and_target(request.kind, line, f"lines[{number}]")
        key = (line.sku, line.location, source, to)
        summed[key] = summed.get(key, 0) + line.quantity
    return [
        MovedLine(sku, location, quantity, source, to)
        for (sku, location, source, to), quantity in summed.items()
    ]


def _source_and_target(kind: str, line: MovementLine, place: str) -> tuple[str, str]:
    require_clean("sku", line.sku)
    require_clean("location", line.location)
    least = {"adjustment": -QUANTITY_MAX, "count": 0}.get(kind, 1)
    if line.quantity < least or (kind == "adjustment" and line.quantity == 0):
        raise Problem("invalid-request", f"{place}.quantity is not one that a {kind} can have.")
    allowed = {
        "transfer": ("to_location",),
        "status": ("from_status", "to_status"),
        "receipt": ("to_status",),
        "return": ("to_status",),
    }.get(kind, ())
    for field in ("to_location", "from_status", "to_status"):
        if getattr(line, field) is not None and field not in allowed:
            raise Problem("invalid-request", f"{place}.{field} does not belong to a {kind}.")
    if kind == "transfer":
        if line.to_location is None or line.to_location == line.location:
            raise Problem("invalid-request", f"{place}.to_location must be another location.")
        require_clean("to_location", line.to_location)
        return "", line.to_location
    if kind == "status" and (line.from_status or "available") == (line.to_status or "available"):
        raise Problem("invalid-request", f"{place} must move units from one status to another.")
    return line.from_status or "", line.to_status or ""


def _occurred_at_ms(request: MovementRequest, arrived_at_ms: int) -> int:
    """Give when it happened: by itself, else when it arrived."""
    if request.as_of is not None and request.kind != "count":
        raise Problem("invalid-request", "as_of belongs to a count.")
    text = request.as_of or request.occurred_at
    if text is None:
        return arrived_at_ms
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Problem("invalid-request", f"{text!r} is not an RFC 3339 time.") from None
    if moment.tzinfo is None:
        raise Problem("invalid-request", f"{text!r} lacks its offset from UTC.")
    at_ms = int(moment.timestamp() * 1000)
    if at_ms <= 0 or at_ms > time.time() * 1000 + CLOCK_SKEW_MS_MAX:
        raise Problem("invalid-request", f"{text!r} is not a time that can have been.")
    return at_ms
