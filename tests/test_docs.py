"""The documentation says what the code does: settings, problems, routes, commands, metrics, dependencies."""

import re
import tomllib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import click
import msgspec
import pytest
from docs_blocks import ROOT, anchors, code_spans, commands, links, page, pages, rows
from in_process import Served, client_of, served
from litestar.routes import HTTPRoute
from msgspec import Struct

from service.api.document.structs import STRUCTS
from service.api.problems import MEDIA_TYPE, PROBLEMS
from service.cli import main
from service.settings import setting_rows

SETTINGS = re.compile(r"<!-- settings: .*? -->\n(.*?)<!-- end of settings -->", re.DOTALL)
METRIC = re.compile(r"ringfence_[a-z_]+")
# Where the document and its page are served; they do not describe themselves.
PAGES = ("/", "/openapi.json", "/docs")
HTTP_METHODS = {"get", "put", "post", "delete", "patch"}
STRUCT_OF_NAME = {struct.__name__: struct for struct in STRUCTS}


@pytest.fixture
async def running(redis_url: str, database_url: str) -> AsyncIterator[Served]:
    """Run the service."""
    async with served(redis_url, database_url) as started:
        yield started


@pytest.fixture
async def document(running: Served) -> dict[str, Any]:
    """Give the OpenAPI document as it is served."""
    answer = await running.client.get("/openapi.json")
    assert answer.status_code == 200
    return answer.json()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give method, path and description of every operation."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if method in HTTP_METHODS:
                yield method.upper(), path, operation


def unnamed(path: str) -> str:
    """Give a path without the names of its parameters and without their types."""
    return re.sub(r"\{[^}]*\}", "{}", path)


def test_settings_are_documented() -> None:
    """The table of settings is the one that the code gives, in its order."""
    table = SETTINGS.search(page("docs/operations.md"))
    assert table is not None
    written = ["| variable | default | |", "|---|---|---|"]
    for row in setting_rows():
        default = f"`{row.default}`" if row.default else ""
        written.append(f"| `{row.variable}` | {default} | {row.description} |")
    assert table[1].strip().splitlines() == written


def test_problems_are_documented() -> None:
    """Each problem stands in the table of errors with its status, and no other does."""
    documented: dict[str, str] = {}
    for row in rows(page("docs/api.md")):
        if re.fullmatch(r"\d{3}(, \d{3})*", row[0]):
            slugs = re.findall(r"`([a-z-]+)`", row[1])
            statuses = row[0].split(", ")
            documented |= dict(zip(slugs, statuses * len(slugs), strict=False))
    assert documented == {slug: str(kind.status) for slug, kind in PROBLEMS.items()}


def test_what_was_done_is_documented() -> None:
    """The table says that nothing was done where the problem says so, and else that it is not known."""
    for row in rows(page("docs/api.md")):
        for slug in re.findall(r"`([a-z-]+)`", row[1] if row[0][:1].isdigit() else ""):
            assert row[2].startswith(PROBLEMS[slug].done), slug


def test_commands_are_documented() -> None:
    """Each command and subcommand stands in the table of commands."""
    documented = {
        " ".join(word for word in line.split()[1:] if word.islower())
        for row in rows(page("docs/operations.md"))
        for line in re.findall(r"`(ringfence [^`]+)`", row[0])
    }
    assert documented == set(_command_names(main))


def _command_names(group: click.Group, before: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _command_names(command, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_documented_commands_exist() -> None:
    """Every `ringfence` command line of a page names a command, a subcommand and options that there are."""
    named = [(name, line) for name, text in pages().items() for line in commands(text, "ringfence")]
    assert named
    for name, line in named:
        found: click.Command = main
        words = line.split()[1:]
        while isinstance(found, click.Group) and words and words[0].isalpha():
            assert words[0] in found.commands, (name, line)
            found = found.commands[words.pop(0)]
        options = {option for parameter in found.params for option in parameter.opts} | {"--help"}
        named_options = {word for word in words if word.startswith("--")}
        assert found.name == "bench" or named_options <= options, (name, line)


def test_documented_targets_exist() -> None:
    """Every `make` target of a page is one of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        (name, line.split()[1]) for name, text in pages().items() for line in commands(text, "make")
    }
    assert named
    assert {entry for entry in named if entry[1] not in targets} == set()


def test_dependencies_are_documented() -> None:
    """Each runtime dependency has its row, and there is no row of another package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = {re.split(r"[^\w-]", text)[0] for text in project["dependencies"]}
    documented = [row[0].split()[0] for row in rows(page("docs/dependencies.md"))]
    assert documented == sorted(wanted)


def test_links_resolve() -> None:
    """Every relative link leads to a file that is there, and to a heading in it."""
    written = pages()
    broken: list[str] = []
    for name, text in written.items():
        for link in links(text):
            if re.match(r"[a-z]+:", link):
                continue
            place, _, anchor = link.partition("#")
            target = ((ROOT / name).parent / place).resolve() if place else ROOT / name
            found = str(target.relative_to(ROOT))
            if not target.exists() or (anchor and anchor not in anchors(written[found])):
                broken.append(f"{name}: {link}")
    assert broken == []


async def test_metrics_are_documented(running: Served) -> None:
    """Each metric of the code is documented, and each documented one is in the code."""
    answer = await running.client.get("/metrics")
    served_names = {
        line.split()[2] for line in answer.text.splitlines() if line.startswith("# TYPE")
    }
    spans = code_spans(page("docs/operations.md"))
    documented = {name for span in spans for name in METRIC.findall(span)}
    assert documented == served_names


async def test_routes_are_documented(document: dict[str, Any]) -> None:
    """Every operation of the OpenAPI document is named, with its method, in a page for those who call it."""
    text = unnamed(page("docs/api.md") + page("docs/integrations.md"))
    missing = [
        f"{method} {path}"
        for method, path, _ in operations(document)
        if not re.search(rf"`{method} {re.escape(unnamed(path))}[`?]", text)
    ]
    assert missing == []


async def test_documented_routes_exist(document: dict[str, Any]) -> None:
    """Every route that a page names is in the OpenAPI document."""
    known = {f"{method} {unnamed(path)}" for method, path, _ in operations(document)}
    named = {
        unnamed(span.partition("?")[0])
        for text in pages().values()
        for span in code_spans(text)
        if re.fullmatch(r"(GET|PUT|POST|DELETE) /\S+", span)
    }
    assert named
    assert named - known == set()


async def test_document_has_every_route(running: Served, document: dict[str, Any]) -> None:
    """What the application serves is in the document, raw handlers included, and nothing else is."""
    documented = {(method, unnamed(path)) for method, path, _ in operations(document)}
    routes = running.service.app.routes
    ordinary = {
        (method, unnamed(route.path_format))
        for route in routes
        if isinstance(route, HTTPRoute) and not _is_page(route.path_format)
        for method in route.methods - {"OPTIONS", "HEAD"}
    }
    mounts = [route.path for route in routes if not isinstance(route, HTTPRoute)]
    assert ordinary <= documented
    for mount in mounts:
        assert any(path.startswith(mount) for _, path in documented), mount
    others = [path for _, path in documented - ordinary if not path.startswith(tuple(mounts))]
    assert others == []


def _is_page(path: str) -> bool:
    return path in PAGES or path.startswith("/docs/")


async def test_documented_operations_are_served(running: Served, document: dict[str, Any]) -> None:
    """Without a key each operation is there: it answers, or asks who calls, and never says not found."""
    async with client_of(running.service, None) as stranger:
        for method, path, operation in operations(document):
            answer = await stranger.request(method, filled(path, operation))
            expected = 200 if operation.get("security") == [] else 401
            assert answer.status_code == expected, (method, path, answer.text)


async def test_document_says_which_methods_there_are(
    running: Served, document: dict[str, Any]
) -> None:
    """A method that an address of the document does not list is refused there."""
    for path, item in document["paths"].items():
        missing = HTTP_METHODS - set(item)
        (operation, *_) = item.values()
        for method in missing:
            address = filled(path, operation)
            answer = await running.client.request(method.upper(), address)
            assert answer.status_code == 405, (method, path, answer.text)
            assert answer.headers["content-type"] == MEDIA_TYPE


def filled(path: str, operation: dict[str, Any]) -> str:
    """Put the examples of its parameters into a path."""
    for parameter in operation.get("parameters", []):
        path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
    assert "{" not in path
    return path


async def test_document_is_openapi(document: dict[str, Any]) -> None:
    """It is OpenAPI 3.1: every reference resolves, and ids, tags, path parameters and schemes agree."""
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= document["info"].keys()
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"\$ref":"([^"]+)"', msgspec.json.encode(document).decode()))
    assert references == {f"#/components/schemas/{name}" for name in schemas}
    described = list(operations(document))
    ids = [operation["operationId"] for _, _, operation in described]
    assert len(ids) == len(set(ids))
    tags = {tag["name"] for tag in document["tags"]}
    assert {tag for _, _, operation in described for tag in operation["tags"]} == tags
    schemes = document["components"]["securitySchemes"].keys()
    used = [
        *document["security"],
        *(each for _, _, o in described for each in o.get("security", [])),
    ]
    assert {name for scheme in used for name in scheme} == schemes
    for _, path, operation in described:
        places = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert places == set(re.findall(r"\{([^}]+)\}", path)), path


async def test_document_is_complete(document: dict[str, Any]) -> None:
    """Each operation has a sentence, a good answer, and an example of whatever it takes and gives."""
    for method, path, operation in operations(document):
        where = f"{method} {path}"
        assert operation["summary"].endswith("."), where
        assert any(status.startswith("2") for status in operation["responses"]), where
        for parameter in operation.get("parameters", []):
            assert {"description", "schema", "example", "required"} <= parameter.keys(), where
        contents = list(_contents(operation))
        for media_type, content in contents:
            assert "example" in content or content.get("examples"), (where, media_type)
        if operation.get("security") != []:
            assert "401" in operation["responses"], where


def _contents(operation: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for described in (operation.get("requestBody", {}), *operation["responses"].values()):
        yield from described.get("content", {}).items()


async def test_examples_are_what_the_schema_says(document: dict[str, Any]) -> None:
    """Every example in JSON decodes as the struct that the schema was made of, problems included."""
    found = 0
    for method, path, operation in operations(document):
        for media_type, content in _contents(operation):
            if "$ref" not in content["schema"]:
                assert media_type.startswith("text/"), path
                continue
            struct = STRUCT_OF_NAME[content["schema"]["$ref"].rpartition("/")[2]]
            examples = [each["value"] for each in content.get("examples", {}).values()]
            for example in examples or [content["example"]]:
                decoded = msgspec.json.decode(msgspec.json.encode(example), type=struct)
                # A request with a field too many is not decoded at all; an answer might be.
                if not struct.__struct_config__.forbid_unknown_fields:
                    again = msgspec.json.decode(msgspec.json.encode(decoded))
                    assert again == example, (method, path)
                found += 1
    assert found > 100


async def test_bodies_are_those_of_the_handlers(running: Served, document: dict[str, Any]) -> None:
    """The document names the struct that each ordinary handler decodes and the one that it gives."""
    for route in running.service.app.routes:
        if not isinstance(route, HTTPRoute) or _is_page(route.path_format):
            continue
        item = document["paths"][route.path_format]
        for method, (handler, _) in route.route_handler_map.items():
            if method in {"OPTIONS", "HEAD"}:
                continue
            operation = item[method.lower()]
            taken = handler.parsed_data_field
            wanted = None if taken is None else taken.annotation.__name__
            assert _struct_name(operation.get("requestBody")) == wanted, route.path
            given = handler.parsed_return_field
            inner = given.inner_types[0] if given.inner_types else given
            if isinstance(inner.annotation, type) and issubclass(inner.annotation, Struct):
                (good, *_) = (operation["responses"][s] for s in operation["responses"] if s < "3")
                assert _struct_name(good) == inner.annotation.__name__, route.path


def _struct_name(described: dict[str, Any] | None) -> str | None:
    if described is None:
        return None
    (content,) = described["content"].values()
    return content["schema"]["$ref"].rpartition("/")[2]


async def test_page_of_the_api_works_offline(running: Served) -> None:
    """The browsable page is served with its scripts, and nothing on it comes from elsewhere."""
    answer = await running.client.get("/docs")
    assert answer.status_code == 200
    wanted = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert wanted
    for address in wanted:
        assert address.startswith("/"), address
        assert (await running.client.get(address)).status_code == 200, address
    assert (await running.client.get("/")).headers["location"] == "/docs"


@pytest.mark.parametrize("path", ["/nothing", "/nothing.json", "/v1/nothing", "/v1/a/b/c"])
async def test_unknown_address_is_a_problem(running: Served, path: str) -> None:
    """An address that leads nowhere is answered with a problem, wherever it is."""
    answer = await running.client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json()["type"] == "/problems/not-found"


async def test_unauthorized_fits_keys_and_signatures(running: Served) -> None:
    """A missing key and a missing signature are told in a sentence that is right for either."""
    async with client_of(running.service, None) as stranger:
        keyless = await stranger.get("/v1/stock/TEE")
        unsigned = await stranger.post("/v1/webhooks/wms", content=b"{}")
    for answer in (keyless, unsigned):
        assert answer.status_code == 401
        assert "key" not in answer.json()["title"].lower()
        assert "signature" in answer.json()["detail"]
        assert "Bearer" in answer.json()["detail"]
