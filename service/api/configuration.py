"""Configuration: SKUs, locations and channels."""

import asyncpg
from litestar import Controller, Response, put

from allocation.commands import Command, ConfigureChannel, ConfigureLocation, ConfigureSku
from allocation.ledger.queries import named_queries
from allocation.outcomes import Outcome
from allocation.ports import Decider
from service.api.answers import problem_of_refusal
from service.api.guards import requires
from service.api.identifiers import require_path_safe
from service.api.problems import Problem
from service.api.schemas import (
    ChannelRequest,
    ConfiguredAnswer,
    LocationRequest,
    SkuRequest,
)

SKU_CHARACTERS_MAX = 128
CODE_CHARACTERS_MAX = 64


class ConfigurationController(Controller):
    """What there is to sell, where it lies, and where it is sold."""

    path = "/v1"
    tags = ("Configuration",)
    guards = (requires("admin"),)

    @put("/locations/{code:str}", status_code=200)
    async def location(
        self, code: str, data: LocationRequest, pipeline: Decider
    ) -> Response[ConfiguredAnswer]:
        """Create or rename a location."""
        _require_code("code", code, CODE_CHARACTERS_MAX)
        version, status = await _configure(pipeline, ConfigureLocation(code, data.name))
        return Response(ConfiguredAnswer(code, data.name, version), status_code=status)

    @put("/channels/{code:str}", status_code=200)
    async def channel(
        self, code: str, data: ChannelRequest, pipeline: Decider
    ) -> Response[ConfiguredAnswer]:
        """Create a channel, or set where it sources from."""
        _require_code("code", code, CODE_CHARACTERS_MAX)
        if len(set(data.locations)) != len(data.locations):
            raise Problem("duplicate-location")
        version, status = await _configure(
            pipeline, ConfigureChannel(code, data.name, data.locations)
        )
        answer = ConfiguredAnswer(code, data.name, version, locations=data.locations)
        return Response(answer, status_code=status)

    @put("/skus/{sku:str}", status_code=200)
    async def sku(
        self, sku: str, data: SkuRequest, pipeline: Decider, pool: asyncpg.Pool
    ) -> Response[ConfiguredAnswer]:
        """Create a SKU, or set its name and safety stock."""
        _require_code("sku", sku, SKU_CHARACTERS_MAX)
        places = [safety.location for safety in data.safety_stock]
        if len(set(places)) != len(places):
            raise Problem("duplicate-location")
        flat = tuple(
            part for safety in data.safety_stock for part in (safety.location, safety.quantity)
        )
        version, status = await _configure(pipeline, ConfigureSku(sku, flat))
        await pool.execute(named_queries("service")["put_name"], sku, data.name)
        answer = ConfiguredAnswer(sku, data.name, version, safety_stock=data.safety_stock)
        return Response(answer, status_code=status)


def _require_code(field: str, code: str, characters_max: int) -> None:
    require_path_safe(field, code)
    if len(code) > characters_max:
        raise Problem("invalid-request", f"{field} may have {characters_max} characters.")


async def _configure(pipeline: Decider, command: Command) -> tuple[int, int]:
    """Set it, and give the ledger position and the status of the answer."""
    decision = await pipeline.submit(command)
    if decision.outcome is Outcome.CREATED:
        return decision.version, 201
    if decision.outcome in {Outcome.REPLACED, Outcome.UNCHANGED}:
        return decision.version, 200
    raise problem_of_refusal(decision)
