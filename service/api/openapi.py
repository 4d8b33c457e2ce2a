"""The OpenAPI document: Litestar serves and shows it; what each operation takes and answers is written by hand.

Litestar does not see the raw handlers, and of the others it does not know the problems.
"""

from importlib import metadata
from typing import Any, cast

import msgspec
from litestar import Litestar, Request, Router, get
from litestar.datastructures import State
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme, Tag
from litestar.response import Redirect
from litestar.static_files import (
    create_static_files_router,  # pyright: ignore[reportUnknownVariableType]
)
from swagger_ui_bundle import swagger_ui_path  # pyright: ignore[reportMissingTypeStubs]

from service.api.document.ends import ends
from service.api.document.operating import operating
from service.api.document.parts import API_KEY, REFERENCE, SIGNATURE, Json
from service.api.document.sales import sales
from service.api.document.structs import STRUCTS

_PAGE = "/docs"
_ASSETS = f"{_PAGE}/assets"
_MEDIA_TYPE = "application/vnd.oai.openapi+json"
_DESCRIPTION = """Holds the number that every storefront may sell, and never lets two shoppers buy the same unit.

Send `Authorization: Bearer <key>` with every call; a webhook is signed instead. Errors are problem documents
(RFC 9457); their member `done` says whether nothing was done or whether that is not known yet."""
_TAGS = {
    "Reservations": "The life of a hold: reserve, confirm, release, extend.",
    "Availability": "What a channel may promise now.",
    "Stock": "What came, what left, what was counted, what was sold elsewhere, and what there is.",
    "Channels": "A channel's figures for whoever keeps a copy of them.",
    "Storefronts": "Where figures are pushed to.",
    "Webhooks": "Signed deliveries of warehouses.",
    "Dead letters": "Deliveries that could not be applied.",
    "Configuration": "Locations, channels and SKUs.",
    "Operations": "Health and metrics, without a key.",
}


def configuration() -> OpenAPIConfig:
    """Say what Litestar puts into the document, and where it shows it."""
    return OpenAPIConfig(
        title="Ringfence",
        version=metadata.version("ringfence"),
        description=_DESCRIPTION,
        # Under an address of its own: Litestar answers whatever it does not know below this with a page.
        path=_PAGE,
        components=Components(
            security_schemes={
                API_KEY: SecurityScheme(type="http", scheme="bearer"),
                SIGNATURE: SecurityScheme(
                    type="apiKey",
                    name="webhook-signature",
                    security_scheme_in="header",
                    description="Standard Webhooks: a list of `v1,` and HMAC-SHA256 in base64.",
                ),
            }
        ),
        security=[{API_KEY: []}],
        tags=[Tag(name, description) for name, description in _TAGS.items()],
        render_plugins=[
            SwaggerRenderPlugin(
                path="/",
                js_url=f"{_ASSETS}/swagger-ui-bundle.js",
                css_url=f"{_ASSETS}/swagger-ui.css",
                standalone_preset_js_url=f"{_ASSETS}/swagger-ui-standalone-preset.js",
                favicon=f'<link rel="icon" href="{_ASSETS}/favicon-32x32.png">',
            ),
            JsonRenderPlugin(path="/openapi.json"),
        ],
    )


def assets() -> Router:
    """Serve the document, and the page's scripts from here, so that it works without the internet."""
    scripts = create_static_files_router(path=_ASSETS, directories=[swagger_ui_path])
    return Router("/", route_handlers=[scripts, _document, _root], include_in_schema=False)


@get("/openapi.json", media_type=_MEDIA_TYPE, sync_to_thread=False)
def _document(request: Request[None, None, State]) -> bytes:
    return msgspec.json.encode(request.app.openapi_schema.to_schema())


@get("/", sync_to_thread=False)
def _root() -> Redirect:
    return Redirect(_PAGE)


def complete_document(app: Litestar) -> None:
    """Put into the document what Litestar cannot know: the raw handlers, the problems, the examples."""
    document = app.openapi_schema
    _, schemas = msgspec.json.schema_components(STRUCTS, ref_template=REFERENCE)
    # The specification's own classes cannot hold these; plain mappings are written as they are.
    components = cast(Json, document.components.schemas if document.components else {})
    components.update(schemas)
    generated = cast(dict[str, Any], document.paths)
    written = sales() | ends() | operating()
    paths: Json = {
        path: (generated[path].to_schema() if path in generated else {}) | described
        for path, described in written.items()
    }
    document.paths = cast(
        Any, paths | {path: generated[path] for path in generated if path not in paths}
    )
