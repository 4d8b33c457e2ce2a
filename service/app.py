"""The ASGI application: routes, and one table that turns every error into a problem."""

import logging
from collections.abc import Mapping, Sequence
from typing import cast

from litestar import Litestar, Request, Response
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import ControllerRouterHandler

from allocation.errors import EngineError
from service.api.channels import ChannelsController
from service.api.configuration import ConfigurationController
from service.api.dead_letters import DeadLettersController
from service.api.exchange import problem_of
from service.api.json_request import JsonRequest
from service.api.openapi import assets, complete_document, configuration
from service.api.operations import OperationsController
from service.api.problems import PROBLEMS, Problem
from service.api.stock import StockController
from service.api.storefronts import StorefrontsController
from service.keys import KeyRing

REQUEST_BYTES_MAX = 4 * 1_048_576
_LOGGER = logging.getLogger(__name__)
_SLUG_OF_STATUS = {
    400: "invalid-request",
    401: "unauthorized",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
}
AnyRequest = Request[object, object, State]


CONTROLLERS = (
    StockController,
    ConfigurationController,
    DeadLettersController,
    ChannelsController,
    StorefrontsController,
    OperationsController,
)


def create_app(
    hot_handlers: Sequence[ControllerRouterHandler],
    ring: KeyRing,
    dependencies: Mapping[str, object],
) -> Litestar:
    """Build the application around what `bootstrap` has made; `dependencies` by the name handlers use."""
    app = Litestar(
        [*hot_handlers, *CONTROLLERS, assets()],
        dependencies={name: _provide(value) for name, value in dependencies.items()},
        signature_types=[type(value) for value in dependencies.values()],
        exception_handlers={
            Problem: _answer_problem,
            EngineError: _answer_fault,
            HTTPException: _answer_http_exception,
            Exception: _answer_bug,
        },
        request_class=JsonRequest,
        request_max_body_size=REQUEST_BYTES_MAX,
        openapi_config=configuration(),
        # Litestar's own logging would add a thread and a queue to every process.
        logging_config=None,
        state=State({"ring": ring}),
    )
    complete_document(app)
    return app


def _provide(value: object) -> Provide:
    return Provide(lambda: value, use_cache=True, sync_to_thread=False)


def _respond(problem: Problem) -> Response[bytes]:
    headers = {name.decode(): value.decode() for name, value in problem.headers()}
    media_type = headers.pop("content-type")
    return Response(
        problem.body(), status_code=problem.kind.status, headers=headers, media_type=media_type
    )


def _answer_problem(_request: AnyRequest, problem: Problem) -> Response[bytes]:
    return _respond(problem)


def _answer_fault(_request: AnyRequest, fault: EngineError) -> Response[bytes]:
    return _respond(problem_of(fault))


def _answer_http_exception(_request: AnyRequest, error: HTTPException) -> Response[bytes]:
    if error.headers and "allow" in error.headers:
        return _respond(Problem.of_method(error.headers["allow"]))
    slug = _SLUG_OF_STATUS.get(error.status_code, "internal-error")
    detail = error.detail.rstrip(".") + "." if PROBLEMS[slug].status < 500 else ""  # noqa: PLR2004
    if isinstance(error.extra, list) and error.extra:
        reasons = cast(list[dict[str, str]], error.extra)
        detail = "; ".join(f"{r.get('key', 'body')}: {r.get('message', '')}" for r in reasons) + "."
    return _respond(Problem(slug, detail))


def _answer_bug(_request: AnyRequest, error: Exception) -> Response[bytes]:
    _LOGGER.error("A request failed by a fault of our own.", exc_info=error)
    return _respond(Problem("internal-error"))
