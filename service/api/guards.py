"""Who may call the ordinary routes."""

from collections.abc import Callable
from typing import Any

from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from service.api.exchange import authorize, is_json
from service.api.problems import Problem
from service.keys import Principal

Connection = ASGIConnection[Any, Any, Any, State]
Guard = Callable[[Connection, BaseRouteHandler], None]


def requires(*scopes: str, json: bool = True) -> Guard:
    """Let a request in whose key has one of the scopes; `json` False: it has no body."""

    def guard(connection: Connection, _handler: BaseRouteHandler) -> None:
        authorization = ", ".join(connection.headers.getall("authorization", [])).encode("latin-1")
        connection.state.principal = authorize(connection.app.state.ring, authorization, *scopes)
        scope = connection.scope
        if json and scope["type"] == "http" and scope["method"] in {"POST", "PUT"}:
            _require_json(connection)

    return guard


def principal_of(connection: Connection) -> Principal:
    """Give who was let in."""
    return connection.state.principal


def _require_json(connection: Connection) -> None:
    if not is_json(connection.headers.get("content-type", "").encode("latin-1")):
        raise Problem("unsupported-media-type")
