"""Requests that are wrong around the body: headers, addresses, content types, lengths."""

from collections.abc import AsyncIterator

import msgspec
import pytest
from e2e.contract.http_client import Client, Connection, Header, request_bytes
from e2e.contract.neighbours import Watch
from e2e.contract.processes import ADMIN_KEY, ServiceProcess
from e2e.contract.shop import Shop, expect_problem, line, unique

pytestmark = pytest.mark.usefixtures("steady_memory")
AUTHORIZATION = ("Authorization", f"Bearer {ADMIN_KEY}")
JSON = ("Content-Type", "application/json")


@pytest.fixture
async def connection(service: ServiceProcess) -> AsyncIterator[Connection]:
    """Give a connection of one's own to do what no library does."""
    opened = await Connection.open(service.port)
    yield opened
    await opened.close()


@pytest.fixture
async def cart(shop: Shop) -> bytes:
    """Give a body that would be held if the rest of the request were right."""
    return msgspec.json.encode({"channel": "web", "lines": [line(await shop.new_sku(5))]})


async def test_missing_or_repeated_key(client: Client, watch: Watch, cart: bytes) -> None:
    """An Idempotency-Key is sent once, with 1 to 255 printable characters and no slash."""
    good = ("Idempotency-Key", unique("key"))
    async with watch.undisturbed():
        for keys in (
            [],
            [good, good],
            [good, ("idempotency-key", "other")],
            [("Idempotency-Key", "")],
            [("Idempotency-Key", "x" * 256)],
            [("Idempotency-Key", "a/b")],
            [("Idempotency-Key", "a\x85b")],
        ):
            request = request_bytes("POST", "/v1/reservations", client.headers(*keys), cart)
            expect_problem(await client.send(request), 400, "invalid-request")


@pytest.mark.parametrize("code", [0, 1, 10, 13, 27, 127])
async def test_control_character_in_a_header(
    connection: Connection, client: Client, watch: Watch, cart: bytes, code: int
) -> None:
    """A header with a control character is no HTTP: the request is refused and the connection closed."""
    request = request_bytes(
        "POST", "/v1/reservations", client.headers(("Idempotency-Key", f"a{chr(code)}b")), cart
    )
    async with watch.undisturbed():
        connection.write(request)
        assert (await connection.until_closed()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/reservations"), ("POST", "/v1/orders"), ("GET", "/v1/availability?channel=web")],
)
async def test_authorization(
    client: Client, watch: Watch, cart: bytes, method: str, path: str
) -> None:
    """Authorization is one bearer key; none, another scheme, or two of them is unauthorized."""
    async with watch.undisturbed():
        for authorizations in (
            [],
            [AUTHORIZATION, AUTHORIZATION],
            [AUTHORIZATION, ("authorization", "Bearer other")],
            [("Authorization", "Bearer other"), AUTHORIZATION],
            [("Authorization", "Bearer")],
            [("Authorization", ADMIN_KEY)],
            [("Authorization", f"Basic {ADMIN_KEY}")],
            [("Authorization", f"Bearer  {ADMIN_KEY}")],
            [("Authorization", f"Bearer {'x' * 5_000}")],
            [("Authorization", "Bearer \xff\xfe")],
        ):
            headers: list[Header] = [*authorizations, JSON, ("Idempotency-Key", unique("key"))]
            expect_problem(
                await client.send(request_bytes(method, path, headers, cart)), 401, "unauthorized"
            )


@pytest.mark.parametrize("path", ["/v1/reservations", "/v1/orders", "/v1/movements"])
async def test_content_type(client: Client, watch: Watch, cart: bytes, path: str) -> None:
    """A body that is not said to be JSON is not read as JSON."""
    async with watch.undisturbed():
        for types in (
            [],
            [("Content-Type", "text/plain")],
            [("Content-Type", "application/x-www-form-urlencoded")],
            [("Content-Type", "multipart/form-data; boundary=x")],
            [("Content-Type", "application/jsonp")],
            [("Content-Type", "")],
        ):
            headers = [AUTHORIZATION, ("Idempotency-Key", unique("key")), *types]
            answer = await client.send(request_bytes("POST", path, headers, cart))
            assert answer.status == 415, (types, answer)
            expect_problem(answer, 415, "unsupported-media-type")


async def test_content_type_with_parameters(client: Client, cart: bytes) -> None:
    """The media type may be written in any case and carry a charset."""
    for text in ("application/json; charset=utf-8", "Application/JSON"):
        headers = [AUTHORIZATION, ("Idempotency-Key", unique("key")), ("Content-Type", text)]
        answer = await client.send(request_bytes("POST", "/v1/reservations", headers, cart))
        assert answer.status == 201, (text, answer)


@pytest.mark.parametrize(
    "name",
    ["%00", "a%00b", "a%0Ab", "a%7Fb", "%ED%A0%80", "%FF", "x" * 300, "%2e%2e", "a%2Fb", "%"],
)
async def test_ids_in_addresses(client: Client, watch: Watch, name: str) -> None:
    """An id in an address is held to the same rules, and is never a fault of the service."""
    async with watch.undisturbed():
        for method, path in (
            ("GET", "/v1/reservations/{}"),
            ("POST", "/v1/reservations/{}/release"),
            ("GET", "/v1/stock/{}"),
            ("GET", "/v1/availability?channel=web&sku={}"),
            ("GET", "/v1/availability?channel={}&sku=A"),
        ):
            request = request_bytes(method, path.format(name), client.headers(), b"")
            answer = await client.send(request)
            assert answer.status in {400, 404, 422}, (path, answer)
        for kind in ("locations", "channels", "skus"):
            if name in {"%FF", "%", "%ED%A0%80", "%2e%2e"}:
                continue  # These come out as printable text, which is a name.
            body = {"locations": ["NORTH"]} if kind == "channels" else {}
            answer = await client.put(f"/v1/{kind}/{name}", body)
            assert answer.status in {400, 404}, (kind, answer)


@pytest.mark.parametrize("path", ["/v1/reservations", "/v1/orders", "/v1/movements"])
async def test_truncated_body(
    service: ServiceProcess, client: Client, watch: Watch, cart: bytes, path: str
) -> None:
    """A body that ends before its declared length is never executed, even if it is whole JSON."""
    headers = client.headers(("Idempotency-Key", unique("key")))
    if path != "/v1/reservations":
        cart = cart.replace(b'"channel":"web"', b'"order_id":"truncated","channel":"web"')
    if path == "/v1/movements":
        cart = (
            b'{"source":"wms","event_id":"truncated","kind":"receipt",'
            + cart[cart.index(b'"lines"') : -3]
            + b',"location":"NORTH"}]}'
        )
    request = request_bytes("POST", path, headers, cart + b" " * 50)
    async with watch.undisturbed():
        for length in (50, 51, 60, len(cart) + 50):
            for abruptly in (True, False):
                connection = await Connection.open(service.port)
                connection.write(request[:-length])
                await connection.drain()
                if not abruptly:
                    connection.end_writing()
                    refused = await connection.until_closed()
                    assert not refused or refused.startswith(b"HTTP/1.1 400 "), refused
                await connection.close()
    key = dict(headers)["Idempotency-Key"]
    if path == "/v1/reservations":
        expect_problem(await client.get(f"/v1/reservations/{key}"), 404, "unknown-reservation")


async def test_chunked_body(connection: Connection, client: Client, cart: bytes) -> None:
    """A body in chunks, without a declared length, is as good as another."""
    headers = client.headers(("Idempotency-Key", unique("key")), ("Transfer-Encoding", "chunked"))
    connection.write(request_bytes("POST", "/v1/reservations", headers))
    for piece in (cart[:10], cart[10:]):
        connection.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    connection.write(b"0\r\n\r\n")
    assert (await connection.read_answer()).status == 201


@pytest.mark.parametrize("path", ["/v1/reservations", "/v1/orders"])
async def test_endless_chunked_body(
    connection: Connection, client: Client, watch: Watch, path: str
) -> None:
    """A body in chunks that grows too large is refused before all of it has come."""
    headers = client.headers(("Idempotency-Key", unique("key")), ("Transfer-Encoding", "chunked"))
    connection.write(request_bytes("POST", path, headers))
    async with watch.undisturbed():
        for _ in range(12):
            connection.write(b"100000\r\n" + b" " * 0x100000 + b"\r\n")
        expect_problem(await connection.read_answer(), 413, "too-large")


async def test_bad_lengths(service: ServiceProcess, watch: Watch, cart: bytes) -> None:
    """A length that is no number, or two that differ, is no HTTP: refused, and the connection closed."""
    head = request_bytes(
        "POST", "/v1/reservations", [AUTHORIZATION, JSON, ("Idempotency-Key", "x")]
    )
    async with watch.undisturbed():
        for lines in (
            b"-1",
            b"1e3",
            b"abc",
            b"99999999999999999999999",
            b"9\r\nContent-Length: 10",
        ):
            connection = await Connection.open(service.port)
            connection.write(head[:-2] + b"Content-Length: " + lines + b"\r\n\r\n" + cart)
            assert (await connection.until_closed()).startswith(b"HTTP/1.1 4")
            await connection.close()


async def test_smuggled_request(service: ServiceProcess, watch: Watch) -> None:
    """Chunks and a length together never let one request pass for two."""
    head = request_bytes(
        "POST",
        "/v1/reservations",
        [AUTHORIZATION, JSON, ("Transfer-Encoding", "chunked"), ("Content-Length", "4")],
    )
    hidden = request_bytes("GET", "/health/live")
    async with watch.undisturbed():
        connection = await Connection.open(service.port)
        connection.write(head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden))
        connection.end_writing()
        assert b"live" not in await connection.until_closed()
        await connection.close()


@pytest.mark.parametrize(
    "text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"x" * 600_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"".join(b"x%d: y\r\n" % n for n in range(5_000)) + b"\r\n",
    ],
    ids=["TLS", "words", "no address", "version", "long address", "many headers"],
)
async def test_no_http(connection: Connection, watch: Watch, text: bytes) -> None:
    """What is no HTTP, or far too much of it, is cut off."""
    async with watch.undisturbed():
        connection.write(text)
        answer = await connection.until_closed()
        assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:100]


async def test_no_http_behind_a_request(
    connection: Connection, client: Client, cart: bytes
) -> None:
    """What is no HTTP behind a whole request takes nothing from that request's answer."""
    headers = client.headers(("Idempotency-Key", unique("key")))
    connection.write(request_bytes("POST", "/v1/reservations", headers, cart) + b"\0\0\r\n\r\n")
    answered = await connection.until_closed()
    assert answered.startswith(b"HTTP/1.1 201 "), answered[:200]
    assert answered.count(b"HTTP/1.1 ") == 1


async def test_bad_chunk(connection: Connection, client: Client, watch: Watch) -> None:
    """A chunk whose length is no number is refused at once, and nothing was done."""
    headers = client.headers(("Idempotency-Key", unique("key")), ("Transfer-Encoding", "chunked"))
    async with watch.undisturbed():
        connection.write(request_bytes("POST", "/v1/reservations", headers) + b"zz\r\n{}\r\n")
        expect_problem(await connection.read_answer(), 400, "invalid-request")
