"""What availability, stock, movements and recorded orders answer."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from e2e.contract.http_client import Client
from e2e.contract.shop import Shop, becomes, expect_problem, line, unique


async def test_availability(shop: Shop, client: Client) -> None:
    """Availability names the channel and each SKU in the order asked for, with units and version."""
    first, second = await shop.new_sku({"NORTH": 2, "SOUTH": 3}), await shop.new_sku({"EAST": 7})
    answer = await client.get(f"/v1/availability?channel=web&sku={second}&sku={first}")
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(answer.body))
    body = answer.json
    versions = [item.pop("version") for item in body["items"]]
    assert body == {
        "channel": "web",
        "items": [{"sku": second, "available": 0}, {"sku": first, "available": 5}],
    }
    assert all(version >= 1 for version in versions)
    assert await shop.available(first, "store") == 3
    assert await shop.available(second, "kiosk") == 7


async def test_version_grows(shop: Shop, client: Client) -> None:
    """A newer figure has a higher version."""
    sku = await shop.new_sku(5)
    path = f"/v1/availability?channel=web&sku={sku}"
    before = (await client.get(path)).json["items"][0]["version"]
    await shop.held([line(sku)])
    await becomes(lambda: shop.available(sku), 4)
    assert (await client.get(path)).json["items"][0]["version"] > before


async def test_availability_refused(shop: Shop, client: Client) -> None:
    """Availability says what is wrong with a question."""
    sku = await shop.new_sku(1)
    for query, status, slug in (
        (f"channel=nowhere&sku={sku}", 422, "unknown-channel"),
        ("channel=web&sku=NEVER", 422, "unknown-sku"),
        (f"sku={sku}", 400, "invalid-request"),
        ("channel=web", 400, "invalid-request"),
        ("", 400, "invalid-request"),
        (f"channel=web&channel=store&sku={sku}", 400, "invalid-request"),
        (f"channel=web&sku={sku}&colour=red", 400, "invalid-request"),
        ("channel=web&sku=%00", 400, "invalid-request"),
        ("channel=web" + f"&sku={sku}" * 501, 413, "too-large"),
    ):
        expect_problem(await client.get(f"/v1/availability?{query}"), status, slug)
    answer = await client.get("/v1/availability?channel=web" + f"&sku={sku}" * 500)
    assert len(answer.json["items"]) == 500


async def test_stock_with_every_bucket(shop: Shop, client: Client) -> None:
    """Stock shows every bucket of every location, and the use of every channel."""
    sku = await shop.new_sku({"NORTH": 10, "SOUTH": 4})
    await client.put(f"/v1/skus/{sku}", {"safety_stock": [{"location": "NORTH", "quantity": 1}]})
    await shop.move("status", [line(sku, 2, "NORTH", to_status="damaged")])
    await shop.move("status", [line(sku, 1, "NORTH", to_status="quality_control")])
    await shop.held([line(sku, 3)])
    committed = await shop.held([line(sku, 1)], channel="store")
    await shop.act(committed, "confirm")
    await shop.settles(sku, {"NORTH": {"reserved": 3}, "SOUTH": {"committed": 1}})
    answer = await client.get(f"/v1/stock/{sku}")
    assert answer.header("content-type") == "application/json"
    assert answer.json.pop("version") >= 1
    north, south = answer.json["locations"]
    assert answer.json.keys() == {"sku", "version", "locations"}
    assert answer.json["sku"] == sku
    assert north == {
        "location": "NORTH",
        "on_hand": 10,
        "unavailable": {"damaged": 2, "quality_control": 1},
        "reserved": 3,
        "committed": 0,
        "safety_stock": 1,
        "available": 3,
        "channels": [{"channel": "web", "reserved": 3, "committed": 0}],
    }
    assert south["channels"] == [{"channel": "store", "reserved": 0, "committed": 1}]
    assert south["available"] == 3


async def test_unknown_stock(client: Client) -> None:
    """Stock of an unknown SKU is refused."""
    expect_problem(await client.get("/v1/stock/NEVER"), 422, "unknown-sku")


async def test_movement(shop: Shop) -> None:
    """A movement is applied once per source and event id, and says whether it was applied now."""
    sku, event = await shop.new_sku(), unique("receipt")
    expected = {"source": "wms", "event_id": event, "lines": 2}
    lines = [line(sku, 3, "NORTH"), line(sku, 4, "NORTH")]
    answer = await shop.move("receipt", lines, event_id=event)
    assert answer.status == 200
    assert answer.header("content-type") == "application/json"
    assert answer.json == expected | {"applied": True, "duplicate": False}
    again = await shop.move("receipt", lines, event_id=event)
    assert (again.status, again.json) == (200, expected | {"applied": False, "duplicate": True})
    await shop.settles(sku, {"NORTH": {"on_hand": 7}})
    answer = await shop.move("receipt", lines, event_id=event, source="erp")
    assert answer.json["applied"] is True
    await shop.settles(sku, {"NORTH": {"on_hand": 14}})
    other = await shop.move("receipt", [line(sku, 1, "NORTH")], event_id=event)
    expect_problem(other, 422, "idempotency-mismatch")


async def test_kinds_of_movement(shop: Shop) -> None:
    """Each kind changes the buckets that it names."""
    sku = await shop.new_sku(10)
    steps: list[tuple[str, dict[str, Any], dict[str, dict[str, Any]]]] = [
        ("adjustment", line(sku, -3, "NORTH"), {"NORTH": {"on_hand": 7}}),
        ("adjustment", line(sku, 1, "NORTH"), {"NORTH": {"on_hand": 8}}),
        ("count", line(sku, 20, "NORTH"), {"NORTH": {"on_hand": 20}}),
        ("count", line(sku, 0, "SOUTH"), {"SOUTH": {"on_hand": 0}}),
        ("shipment", line(sku, 2, "NORTH"), {"NORTH": {"on_hand": 18}}),
        ("return", line(sku, 1, "NORTH"), {"NORTH": {"on_hand": 19}}),
        (
            "return",
            line(sku, 1, "NORTH", to_status="damaged"),
            {"NORTH": {"on_hand": 20, "available": 19}},
        ),
        (
            "transfer",
            line(sku, 5, "NORTH", to_location="SOUTH"),
            {"NORTH": {"on_hand": 15}, "SOUTH": {"on_hand": 5, "available": 5}},
        ),
        (
            "status",
            line(sku, 1, "NORTH", from_status="damaged", to_status="available"),
            {"NORTH": {"on_hand": 15, "available": 15}},
        ),
    ]
    for kind, moved, expected in steps:
        answer = await shop.move(kind, [moved])
        assert (answer.status, answer.json["applied"]) == (200, True), (kind, answer)
        await shop.settles(sku, expected)


async def test_count_as_of(shop: Shop) -> None:
    """A count as of a time keeps the movements that came after that time."""
    sku = await shop.new_sku()
    now = datetime.now(UTC)

    def ago(**time: float) -> str:
        return (now - timedelta(**time)).isoformat()

    await shop.move("receipt", [line(sku, 10, "NORTH")], occurred_at=ago(hours=3))
    await shop.move("shipment", [line(sku, 4, "NORTH")], occurred_at=ago(hours=1))
    await shop.move("count", [line(sku, 9, "NORTH")], as_of=ago(hours=2))
    await shop.settles(sku, {"NORTH": {"on_hand": 5}})
    old = await shop.move("count", [line(sku, 9, "NORTH")], as_of=ago(days=31))
    expect_problem(old, 422, "count-too-old")
    await shop.settles(sku, {"NORTH": {"on_hand": 5}})


async def test_shipment_for_an_unknown_reservation(shop: Shop) -> None:
    """Goods that left under an unknown name have left all the same, and end nobody's commitment."""
    sku = await shop.new_sku(5)
    await shop.act(await shop.held([line(sku, 2)]), "confirm")
    answer = await shop.move("shipment", [line(sku, 1, "NORTH")], reservation_id="never")
    assert (answer.status, answer.json["applied"]) == (200, True)
    await shop.settles(sku, {"NORTH": {"on_hand": 4, "committed": 2, "available": 2}})


async def test_movement_refused(shop: Shop) -> None:
    """A movement that names what does not exist is refused whole."""
    sku = await shop.new_sku(5)
    good = line(sku, 1, "NORTH")
    for kind, bad, status, slug in (
        ("receipt", line("NEVER", 1, "NORTH"), 422, "unknown-sku"),
        ("receipt", line(sku, 1, "MOON"), 422, "unknown-location"),
        ("transfer", line(sku, 1, "NORTH", to_location="MOON"), 422, "unknown-location"),
        ("transfer", line(sku, 1, "NORTH"), 400, "invalid-request"),
        ("transfer", line(sku, 1, "NORTH", to_location="NORTH"), 400, "invalid-request"),
        ("receipt", line(sku, 0, "NORTH"), 400, "invalid-request"),
        ("receipt", line(sku, -1, "NORTH"), 400, "invalid-request"),
        ("adjustment", line(sku, 0, "NORTH"), 400, "invalid-request"),
        ("count", line(sku, -1, "NORTH"), 400, "invalid-request"),
        ("shipment", line(sku, 1, "NORTH", to_location="SOUTH"), 400, "invalid-request"),
        ("status", line(sku, 1, "NORTH"), 400, "invalid-request"),
    ):
        lines = [bad] if kind in {"transfer", "status"} else [good, bad]
        expect_problem(await shop.move(kind, lines), status, slug)
    for field in ({"occurred_at": "yesterday"}, {"occurred_at": "2026-01-01T00:00:00"}):
        expect_problem(await shop.move("receipt", [good], **field), 400, "invalid-request")
    later = (datetime.now(UTC) + timedelta(days=3)).isoformat()
    answer = await shop.move("receipt", [good], occurred_at=later)
    expect_problem(answer, 400, "invalid-request")
    assert (await shop.pools(sku))["NORTH"]["on_hand"] == 5


async def test_largest_movement(shop: Shop) -> None:
    """A movement of 10,000 lines is applied whole, or refused whole; one more line is too large."""
    skus = [await shop.new_sku() for _ in range(20)]
    lines = [line(skus[number % 20], 1, "NORTH") for number in range(10_000)]
    answer = await shop.move("receipt", lines, event_id=(event := unique("bulk")))
    assert answer.json["applied"] is True
    assert (await shop.move("receipt", lines, event_id=event)).json["duplicate"] is True
    await asyncio.gather(*(shop.settles(sku, {"NORTH": {"on_hand": 500}}) for sku in skus))
    expect_problem(await shop.move("receipt", [*lines, lines[0]]), 413, "too-large")
    places = ("NORTH", "SOUTH", "EAST")
    many = [line(sku, 1, place) for sku in skus for place in places]
    expect_problem(
        await shop.move("receipt", [*many * 150, line("NEVER", 1, "NORTH")]), 422, "unknown-sku"
    )
    assert (await shop.pools(skus[0]))["NORTH"]["on_hand"] == 500


async def test_order(shop: Shop, client: Client) -> None:
    """A sale that was made without asking is always recorded, and what it oversold is reported."""
    sku, order = await shop.new_sku(3), unique("order")
    body = {"order_id": order, "channel": "web", "lines": [line(sku, 2)]}
    answer = await client.post("/v1/orders", body)
    assert answer.status == 201
    assert answer.header("content-type") == "application/json"
    assert answer.json == {
        "order_id": order,
        "reservation_id": answer.json["reservation_id"],
        "state": "committed",
        "channel": "web",
        "lines": [{"sku": sku, "quantity": 2, "location": "NORTH"}],
        "oversold": [],
    }
    again = await client.post("/v1/orders", body)
    assert (again.status, again.json) == (200, answer.json)
    assert again.header("idempotent-replayed") == "true"
    other = await client.post("/v1/orders", body | {"lines": [line(sku, 1)]})
    expect_problem(other, 422, "idempotency-mismatch")
    more = await client.post("/v1/orders", body | {"order_id": unique("order")})
    assert more.status == 201
    assert more.json["oversold"] == [{"sku": sku, "quantity": 1}]
    await shop.settles(sku, {"NORTH": {"on_hand": 3, "committed": 4, "available": -1}})
    assert await shop.available(sku) == 0
    assert await shop.state(answer.json["reservation_id"]) == "committed"


async def test_id_of_an_order(shop: Shop, client: Client) -> None:
    """No cart can take the id that a recorded order will need."""
    sku, order = await shop.new_sku(3), unique("order")
    expect_problem(
        await shop.reserve([line(sku)], key=f"order:web:{order}"), 400, "invalid-request"
    )
    body = {"order_id": order, "channel": "web", "lines": [line(sku)]}
    assert (await client.post("/v1/orders", body)).status == 201


async def test_order_refused(shop: Shop, client: Client) -> None:
    """An order that names what does not exist is refused."""
    sku = await shop.new_sku(3)
    for channel, lines, slug in (
        ("nowhere", [line(sku)], "unknown-channel"),
        ("web", [line("NEVER")], "unknown-sku"),
        ("web", [line(sku, 1, "MOON")], "unknown-location"),
    ):
        body = {"order_id": unique("order"), "channel": channel, "lines": lines}
        expect_problem(await client.post("/v1/orders", body), 422, slug)
