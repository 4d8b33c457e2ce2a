"""Storefronts: where figures are pushed to, and what each of them has heard."""

from typing import Annotated

import asyncpg
from litestar import Controller, Response, delete, get, put
from litestar.di import NamedDependency
from msgspec import UNSET, Meta, Struct, UnsetType

from service.api.guards import requires
from service.api.identifiers import require_path_safe
from service.api.problems import Problem
from service.api.schemas import Code, Request
from service.figures import Figures
from service.storefronts.registration import Refused, Registration

NAME_CHARACTERS_MAX = 64


class StorefrontRequest(Request, frozen=True):
    """Where the figures of a channel are pushed to; without a secret, one is made."""

    channel: Code
    url: Annotated[str, Meta(min_length=1, max_length=2_048)]
    secret: Annotated[str, Meta(max_length=100)] | None = None


class StorefrontPutAnswer(Struct, frozen=True):
    """A storefront as it was set; `secret` is there once, where one was made."""

    name: str
    channel: str
    url: str
    secret: str | UnsetType = UNSET


class StorefrontAnswer(Struct, frozen=True):
    """A storefront, how many SKUs it has heard of, and how far behind it is; `gone`: it wanted no more."""

    name: str
    channel: str
    url: str
    state: str
    pending: int
    failing: int
    delivered: int
    oldest_undelivered_age_seconds: float | None
    last_error: str


class StorefrontsAnswer(Struct, frozen=True):
    """Every storefront."""

    items: list[StorefrontAnswer]


class StorefrontsController(Controller):
    """The storefronts of every channel. Their secrets are never shown again."""

    path = "/v1/storefronts"
    tags = ("Storefronts",)
    guards = (requires("admin"),)

    @put("/{name:str}", status_code=200)
    async def put_storefront(
        self,
        name: str,
        data: StorefrontRequest,
        figures: NamedDependency[Figures],
        storefronts: NamedDependency[Registration],
    ) -> Response[StorefrontPutAnswer]:
        """Create or replace a storefront; it hears every figure of its channel anew."""
        require_path_safe("name", name)
        if len(name) > NAME_CHARACTERS_MAX:
            raise Problem("invalid-request", f"name may have {NAME_CHARACTERS_MAX} characters.")
        if data.channel not in figures.channels:
            raise Problem("unknown-channel", f"Channel {data.channel}.")
        result = await storefronts.put(name, data.channel, data.url, data.secret)
        if isinstance(result, Refused):
            raise Problem("invalid-request", result.reason)
        answer = StorefrontPutAnswer(name, data.channel, data.url, result.made_secret or UNSET)
        return Response(answer, status_code=201 if result.created else 200)

    @get()
    async def list_storefronts(
        self, storefronts: NamedDependency[Registration]
    ) -> StorefrontsAnswer:
        """List every storefront."""
        return StorefrontsAnswer([_answer(row) for row in await storefronts.all()])

    @get("/{name:str}")
    async def show_storefront(
        self, name: str, storefronts: NamedDependency[Registration]
    ) -> StorefrontAnswer:
        """Show one storefront."""
        rows = await storefronts.all(name)
        if not rows:
            raise Problem("not-found", f"There is no storefront {name}.")
        return _answer(rows[0])

    @delete("/{name:str}", status_code=204)
    async def delete_storefront(
        self, name: str, storefronts: NamedDependency[Registration]
    ) -> None:
        """Push nothing more to a storefront, and forget it."""
        if not await storefronts.delete(name):
            raise Problem("not-found", f"There is no storefront {name}.")


def _answer(row: asyncpg.Record) -> StorefrontAnswer:
    return StorefrontAnswer(*(row[field] for field in StorefrontAnswer.__struct_fields__))
