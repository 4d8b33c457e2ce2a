"""Bodies that no well-meaning client sends: each gets its problem, changes nothing, and costs nobody else."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from e2e.contract.http_client import Answer
from e2e.contract.neighbours import Watch
from e2e.contract.shop import Shop, expect_problem, line, unique

pytestmark = pytest.mark.usefixtures("steady_memory")
MEGABYTE = 1_048_576
DEPTH = 100_000

NO_JSON = {
    "empty": b"",
    "white space": b"  \n",
    "not JSON": b"hello",
    "half an object": b'{"channel":"web","lines":[{"sku":"A","quantity":1',
    "two objects": b"{} {}",
    "trailing comma": b'{"channel":"web","lines":[],}',
    "single quotes": b"{'channel':'web'}",
    "comment": b'{"channel":"web" /* the shop */}',
    "an array": b"[]",
    "a number": b"7",
    "null": b"null",
    "a string": b'"web"',
    "not UTF-8": b'{"channel":"\xff\xfe"}',
    "UTF-16": '{"channel":"web"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"channel":"web"}',
    "NUL bytes": b"\x00" * 100,
    "deep arrays": b"[" * DEPTH,
    "deep objects": b'{"a":' * DEPTH,
    "deep closed arrays": b"[" * DEPTH + b"]" * DEPTH,
    "deep lines": b'{"channel":"web","lines":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
    "deep unknown field": b'{"deep":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
}
# What stands for a quantity in an otherwise good body.
NO_QUANTITY = {
    "zero": b"0",
    "negative": b"-1",
    "above the most": b"1000000001",
    "2^53+1": b"9007199254740993",
    "2^63": b"9223372036854775808",
    "2^64": b"18446744073709551616",
    "4,301 digits": b"9" * 4_301,
    "900,000 digits": b"9" * 900_000,
    "float": b"1.5",
    "huge exponent": b"1e400",
    "NaN": b"NaN",
    "Infinity": b"Infinity",
    "negative infinity": b"-Infinity",
    "string": b'"1"',
    "true": b"true",
    "null": b"null",
    "array": b"[1]",
    "object": b"{}",
    "leading zero": b"01",
    "hexadecimal": b"0x1",
}
NO_ID = {
    "empty": '""',
    "300 characters": f'"{"x" * 300}"',
    "NUL": r'"a\u0000b"',
    "line feed": r'"a\nb"',
    "escape": r'"a\u001bb"',
    "delete": r'"a\u007fb"',
    "right-to-left override": r'"a\u202eb"',
    "lone surrogate": r'"a\ud800b"',
    "half a pair": r'"a\ude00"',
    "raw control character": '"a\x01b"',
    "number": "7",
    "object": "{}",
}
PATHS = ("/v1/reservations", "/v1/movements", "/v1/orders")


async def _post(shop: Shop, path: str, body: bytes) -> Answer:
    return await shop.client.post(path, body, unique("bad"))


def _body(path: str, sku: str) -> dict[str, Any]:
    match path:
        case "/v1/movements":
            head = {"source": "wms", "event_id": unique("event"), "kind": "receipt"}
            return head | {"lines": [line(sku, 1, "NORTH")]}
        case "/v1/orders":
            head = {"order_id": unique("order"), "channel": "web"}
            return head | {"lines": [line(sku, 1)]}
        case _:
            return {"channel": "web", "lines": [line(sku, 1)]}


@pytest.mark.parametrize("path", [*PATHS, "/v1/locations/NORTH", "/v1/channels/web"])
async def test_no_json(shop: Shop, watch: Watch, path: str) -> None:
    """What is no JSON object of the right kind is an invalid request."""
    async with watch.undisturbed():
        for name, body in NO_JSON.items():
            send = shop.client.put if path.count("/") > 2 else shop.client.post
            answer = await send(path, body)
            assert answer.status == 400, (name, answer)
            expect_problem(answer, 400, "invalid-request")


@pytest.mark.parametrize("path", PATHS)
async def test_no_quantity(shop: Shop, watch: Watch, path: str) -> None:
    """A quantity is an integer within its bounds, written as one."""
    sku = await shop.new_sku(5)
    async with watch.undisturbed():
        for name, quantity in NO_QUANTITY.items():
            body = msgspec.json.encode(_body(path, sku)).replace(
                b'"quantity":1', b'"quantity":' + quantity
            )
            answer = await _post(shop, path, body)
            assert answer.status == 400, (name, answer)
            expect_problem(answer, 400, "invalid-request")
    assert await shop.available(sku) == 5


def _fields(path: str) -> list[Callable[[dict[str, Any], object], None]]:
    def field(name: str) -> Callable[[dict[str, Any], object], None]:
        return lambda body, value: body.update({name: value})

    def in_line(name: str) -> Callable[[dict[str, Any], object], None]:
        return lambda body, value: body["lines"][0].update({name: value})

    lines = [in_line("sku"), in_line("location")]
    match path:
        case "/v1/movements":
            return [field("source"), field("event_id"), field("reservation_id"), *lines]
        case "/v1/orders":
            return [field("order_id"), field("channel"), *lines]
        case _:
            return [field("channel"), field("replaces"), *lines]


@pytest.mark.parametrize("path", PATHS)
async def test_no_id(shop: Shop, watch: Watch, path: str) -> None:
    """An id has printable characters, a bounded number of them."""
    sku = await shop.new_sku(5)
    async with watch.undisturbed():
        for name, text in NO_ID.items():
            for number, put in enumerate(_fields(path)):
                put(body := _body(path, sku), msgspec.Raw(text.encode()))
                answer = await _post(shop, path, msgspec.json.encode(body))
                assert answer.status == 400, (name, number, answer)
                expect_problem(answer, 400, "invalid-request")


@pytest.mark.parametrize("path", PATHS)
async def test_fields(shop: Shop, watch: Watch, path: str) -> None:
    """A field that is unknown, missing or of the wrong type is refused, wherever it stands."""
    sku = await shop.new_sku(5)
    good = _body(path, sku)
    bad = [
        good | {"colour": "red"},
        good | {"lines": [good["lines"][0] | {"colour": "red"}]},
        good | {"lines": []},
        good | {"lines": None},
        good | {"lines": {}},
        good | {"lines": good["lines"][0]},
        good | {"lines": [None]},
        good | {"lines": [[sku, 1]]},
        good | {"lines": [{}]},
        *({key: good[key] for key in good if key != missing} for missing in good),
    ]
    if path == "/v1/reservations":
        bad += [
            good | {"ttl_seconds": ttl} for ttl in (0, -1, 604_801, 1.5, "60", None, True, 2**63)
        ]
        bad += [good | {"partial": "yes"}, good | {"partial": 1}, good | {"ack": "never"}]
    if path == "/v1/movements":
        bad += [good | {"kind": "theft"}, good | {"kind": 1}, good | {"as_of": "2026-01-01"}]
    async with watch.undisturbed():
        for body in bad:
            answer = await _post(shop, path, msgspec.json.encode(body))
            assert answer.status == 400, (body, answer)
            expect_problem(answer, 400, "invalid-request")


@pytest.mark.parametrize("path", PATHS)
async def test_too_large(shop: Shop, watch: Watch, path: str) -> None:
    """A body of ten megabytes is too large, whether or not it would be a good one otherwise."""
    padded = msgspec.json.encode(_body(path, await shop.new_sku(5)) | {"pad": "x" * 10 * MEGABYTE})
    digits = msgspec.json.encode(_body(path, "A")).replace(b":1", b":" + b"9" * 10 * MEGABYTE)
    async with watch.undisturbed():
        for body in (padded, digits, b"[" * 10 * MEGABYTE, b" " * 10 * MEGABYTE):
            expect_problem(await _post(shop, path, body), 413, "too-large")


async def test_too_many_lines(shop: Shop, watch: Watch) -> None:
    """A cart or an order of 1,001 lines is too large, also where they name few SKUs."""
    lines = [line(f"SKU-OF-MANY-{number}") for number in range(1_001)]
    async with watch.undisturbed():
        expect_problem(await shop.reserve(lines), 413, "too-large")
        order = {"order_id": unique("order"), "channel": "web", "lines": lines}
        expect_problem(await shop.client.post("/v1/orders", order), 413, "too-large")


async def test_bodies_of_actions(shop: Shop, watch: Watch) -> None:
    """Confirming, releasing and extending refuse bodies that they do not know."""
    held = await shop.held([line(await shop.new_sku(1))])
    async with watch.undisturbed():
        for action, body in (
            ("confirm", {"order_id": 7}),
            ("confirm", {"order_id": ""}),
            ("confirm", {"order_id": "x" * 256}),
            ("confirm", {"order_id": "a\0b"}),
            ("confirm", {"colour": "red"}),
            ("confirm", b"{"),
            ("confirm", b"[]"),
            ("release", {"colour": "red"}),
            ("release", b"hello"),
            ("extend", {}),
            ("extend", {"ttl_seconds": 0}),
            ("extend", {"ttl_seconds": 604_801}),
            ("extend", {"ttl_seconds": 60, "colour": "red"}),
            ("extend", None),
        ):
            answer = await shop.act(held, action, body)
            assert answer.status == 400, (action, body, answer)
            expect_problem(answer, 400, "invalid-request")
    assert await shop.state(held) == "held"
