"""What configuration, health and metrics answer, and which key may do what."""

import pytest
from e2e.contract.api_keys import Keys
from e2e.contract.http_client import Answer, Client, request_bytes
from e2e.contract.processes import ServiceProcess
from e2e.contract.shop import Shop, becomes, expect_problem, line, unique


async def test_location(client: Client) -> None:
    """A location is created with 201, replaced with 200."""
    code = unique("LOC")
    created = await client.put(f"/v1/locations/{code}", {"name": "Shelf"})
    replaced = await client.put(f"/v1/locations/{code}", {"name": "Rack"})
    for answer, status, name in ((created, 201, "Shelf"), (replaced, 200, "Rack")):
        assert answer.status == status
        assert answer.header("content-type") == "application/json"
        assert answer.json.pop("version") >= 1
        assert answer.json | {"version": 0} == {"code": code, "name": name, "version": 0}


async def test_channel(shop: Shop, client: Client) -> None:
    """A channel is created with 201, and sells from the locations that it has now."""
    code, sku = unique("channel"), await shop.new_sku({"NORTH": 1, "EAST": 5})
    answer = await client.put(f"/v1/channels/{code}", {"locations": ["NORTH"]})
    assert answer.status == 201
    assert answer.json["code"] == code
    assert answer.json["locations"] == ["NORTH"]
    await becomes(lambda: shop.available(sku, code), 1)
    answer = await client.put(
        f"/v1/channels/{code}", {"locations": ["EAST", "NORTH"], "name": "Both"}
    )
    assert (answer.status, answer.json["name"]) == (200, "Both")
    await becomes(lambda: shop.available(sku, code), 6)
    held = await shop.reserve([line(sku)], channel=code)
    assert held.json["lines"] == [{"sku": sku, "quantity": 1, "location": "EAST"}]


async def test_channel_refused(client: Client) -> None:
    """A channel sources from locations that exist, each listed once."""
    path = f"/v1/channels/{unique('channel')}"
    answer = await client.put(path, {"locations": ["NORTH", "NORTH"]})
    expect_problem(answer, 422, "duplicate-location")
    expect_problem(await client.put(path, {"locations": ["MOON"]}), 422, "unknown-location")


async def test_sku(client: Client) -> None:
    """A SKU is created with 201, replaced with 200, and shows its safety stock."""
    sku, safety = unique("SKU"), [{"location": "NORTH", "quantity": 2}]
    created = await client.put(f"/v1/skus/{sku}", {"name": "Mug", "safety_stock": safety})
    assert created.status == 201
    assert created.json == {
        "code": sku,
        "name": "Mug",
        "version": created.json["version"],
        "safety_stock": safety,
    }
    replaced = await client.put(f"/v1/skus/{sku}", {})
    assert (replaced.status, replaced.json["safety_stock"]) == (200, [])
    twice = await client.put(f"/v1/skus/{sku}", {"safety_stock": safety * 2})
    expect_problem(twice, 422, "duplicate-location")
    moon = await client.put(
        f"/v1/skus/{sku}", {"safety_stock": [{"location": "MOON", "quantity": 1}]}
    )
    expect_problem(moon, 422, "unknown-location")


async def test_health(service: ServiceProcess) -> None:
    """Health needs no key and says that the service can do its work."""
    async with Client(service.port, "") as stranger:
        live = await stranger.send(request_bytes("GET", "/health/live"))
        assert (live.status, live.json) == (200, {"status": "live"})
        ready = await stranger.send(request_bytes("GET", "/health/ready"))
    assert ready.status == 200
    assert ready.header("content-type") == "application/json"
    assert ready.json == {"status": "ready", "gate": "verified", "ledger": "timely"}


async def test_metrics(shop: Shop, service: ServiceProcess) -> None:
    """Metrics count decisions by outcome, in Prometheus' text format, and need no key."""

    async def held() -> float:
        async with Client(service.port, "") as stranger:
            answer = await stranger.send(request_bytes("GET", "/metrics"))
        assert answer.status == 200
        content_type = answer.header("content-type") or ""
        assert content_type.startswith("text/plain; version=0.0.4")
        samples = dict(
            text.rsplit(" ", 1) for text in answer.body.decode().splitlines() if text[0] != "#"
        )
        assert samples['ringfence_gate_verified{shard="0"}'] == "1.0"
        return sum(
            float(value)
            for sample, value in samples.items()
            if sample.startswith('ringfence_decisions_total{outcome="held",')
        )

    before = await held()
    await shop.held([line(await shop.new_sku(1))])
    assert await held() == before + 1


async def test_nothing_there(client: Client) -> None:
    """An address without anything is a problem like any other."""
    for path in ("/v2/reservations", "/v1/reservations/x/steal", "/v1/nothing"):
        expect_problem(await client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/reservations"),
        ("DELETE", "/v1/reservations/x"),
        ("PUT", "/v1/reservations/x"),
        ("GET", "/v1/reservations/x/confirm"),
        ("GET", "/v1/reservations/x/release"),
        ("PATCH", "/v1/reservations/x/extend"),
        ("POST", "/v1/availability"),
        ("GET", "/v1/movements"),
        ("PUT", "/v1/orders"),
        ("POST", "/v1/stock/x"),
        ("POST", "/v1/skus/x"),
        ("DELETE", "/v1/channels/x"),
        ("POST", "/metrics"),
    ],
)
async def test_wrong_method(client: Client, method: str, path: str) -> None:
    """A method that an address does not take is a problem, which names those that it takes."""
    answer = await client.send(request_bytes(method, path, client.headers(), b""))
    expect_problem(answer, 405, "method-not-allowed")
    assert answer.header("allow")


async def _every_call(client: Client) -> dict[str, Answer]:
    cart = {"channel": "kiosk", "lines": [line("NEVER")]}
    return {
        "reserve": await client.post("/v1/reservations", cart, unique("key")),
        "order": await client.post("/v1/orders", cart | {"order_id": unique("order")}),
        "read": await client.get("/v1/reservations/never"),
        "release": await client.post("/v1/reservations/never/release"),
        "availability": await client.get("/v1/availability?channel=kiosk&sku=NEVER"),
        "stock": await client.get("/v1/stock/NEVER"),
        "movement": await client.post(
            "/v1/movements",
            {
                "source": "wms",
                "event_id": unique("event"),
                "kind": "receipt",
                "lines": [line("NEVER", 1, "NORTH")],
            },
        ),
        "configuration": await client.put("/v1/locations/NORTH", {}),
    }


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("reserve", {"reserve", "order", "read", "release", "availability"}),
        ("read", {"read", "availability", "stock"}),
        ("movements", {"movement"}),
        ("kiosk", {"reserve", "order", "read", "release", "availability"}),
    ],
)
async def test_scopes(service: ServiceProcess, keys: Keys, key: str, allowed: set[str]) -> None:
    """A key may do what its scope says, and is refused everything else."""
    async with Client(service.port, getattr(keys, key)) as client:
        for call, answer in (await _every_call(client)).items():
            if call in allowed:
                assert answer.status not in {401, 403}, (call, answer)
            else:
                expect_problem(answer, 403, "forbidden")


async def test_bound_key(shop: Shop, service: ServiceProcess, keys: Keys) -> None:
    """A key that is bound to a channel neither sells on another nor sees its reservations."""
    sku = await shop.new_sku({"NORTH": 1, "EAST": 1})
    foreign = await shop.held([line(sku)])
    async with Client(service.port, keys.kiosk) as client:
        kiosk = Shop(client)
        expect_problem(await kiosk.reserve([line(sku)]), 403, "forbidden")
        order = {"order_id": unique("order"), "channel": "web", "lines": [line(sku)]}
        expect_problem(await client.post("/v1/orders", order), 403, "forbidden")
        answer = await client.get(f"/v1/availability?channel=web&sku={sku}")
        expect_problem(answer, 403, "forbidden")
        for answer in (
            await client.get(f"/v1/reservations/{foreign}"),
            await kiosk.act(foreign, "confirm"),
            await kiosk.act(foreign, "release"),
            await kiosk.act(foreign, "extend", {"ttl_seconds": 60}),
        ):
            expect_problem(answer, 404, "unknown-reservation")
        answer = await kiosk.reserve([line(sku)], channel="kiosk", replaces=foreign)
        expect_problem(answer, 404, "unknown-reservation")
        own = await kiosk.held([line(sku)], channel="kiosk")
        assert (await kiosk.act(own, "confirm")).status == 200
    assert await shop.state(foreign) == "held"


async def test_no_valid_key(service: ServiceProcess, keys: Keys) -> None:
    """Without a valid key nothing is answered but that there is none."""
    for key in ("", "wrong", keys.revoked, keys.reserve[:-1], keys.reserve.upper()):
        async with Client(service.port, key) as client:
            for answer in (await _every_call(client)).values():
                expect_problem(answer, 401, "unauthorized")
