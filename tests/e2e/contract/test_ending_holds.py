"""What confirming, releasing, extending and reading a reservation answer."""

from datetime import UTC, datetime, timedelta

from e2e.contract.http_client import Answer, Client
from e2e.contract.shop import Shop, expect_problem, line, unique


def expect_reservation(answer: Answer, reservation_id: str, state: str, **more: object) -> None:
    """Check a reservation that is no hold any more, which has no deadline to tell of."""
    assert answer.status == 200, answer
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(answer.body))
    found = answer.json
    assert found.pop("lines")
    assert (
        found
        == {
            "reservation_id": reservation_id,
            "state": state,
            "channel": "web",
        }
        | more
    )


async def test_confirm(shop: Shop) -> None:
    """A confirmed hold is committed; confirming it again gives the same answer and does nothing."""
    sku = await shop.new_sku(5)
    held = await shop.held([line(sku, 2)])
    answer = await shop.act(held, "confirm", {"order_id": "order-1"})
    expect_reservation(answer, held, "committed", order_id="order-1")
    for repeated in (None, {}, {"order_id": "order-1"}):
        again = await shop.act(held, "confirm", repeated)
        expect_reservation(again, held, "committed", order_id="order-1")
        assert again.json == answer.json
    await shop.settles(
        sku, {"NORTH": {"on_hand": 5, "reserved": 0, "committed": 2, "available": 3}}
    )


async def test_confirm_without_order(shop: Shop) -> None:
    """An order id may be left out."""
    held = await shop.held([line(await shop.new_sku(1))])
    expect_reservation(await shop.act(held, "confirm"), held, "committed")


async def test_confirm_for_another_order(shop: Shop) -> None:
    """A reservation that was confirmed for one order is not confirmed for another."""
    held = await shop.held([line(await shop.new_sku(1))])
    await shop.act(held, "confirm", {"order_id": "one"})
    answer = await shop.act(held, "confirm", {"order_id": "two"})
    expect_problem(answer, 422, "idempotency-mismatch")


async def test_release(shop: Shop) -> None:
    """A released hold is sellable at once; releasing it again does nothing."""
    sku = await shop.new_sku(1)
    held = await shop.held([line(sku)])
    expect_reservation(await shop.act(held, "release"), held, "released")
    assert (await shop.reserve([line(sku)])).status == 201
    expect_reservation(await shop.act(held, "release"), held, "released")
    await shop.settles(sku, {"NORTH": {"reserved": 1, "committed": 0, "available": 0}})


async def test_release_of_a_commitment(shop: Shop) -> None:
    """A placed order that is cancelled gives its units back."""
    sku = await shop.new_sku(1)
    held = await shop.held([line(sku)])
    await shop.act(held, "confirm")
    expect_reservation(await shop.act(held, "release"), held, "released")
    await shop.settles(sku, {"NORTH": {"committed": 0, "available": 1}})


async def test_released_is_lost(shop: Shop) -> None:
    """A released hold can neither be confirmed nor extended."""
    held = await shop.held([line(await shop.new_sku(1))])
    await shop.act(held, "release")
    expect_problem(await shop.act(held, "confirm"), 409, "hold-lost")
    expect_problem(await shop.act(held, "extend", {"ttl_seconds": 60}), 409, "hold-lost")


async def test_extend(shop: Shop) -> None:
    """An extended hold lives that long from now on."""
    held = await shop.held([line(await shop.new_sku(1))], ttl_seconds=60)
    before = datetime.now(UTC)
    answer = await shop.act(held, "extend", {"ttl_seconds": 600})
    assert answer.status == 200
    assert answer.json["state"] == "held"
    lasts = datetime.fromisoformat(answer.json["expires_at"]) - before
    assert timedelta(seconds=599) < lasts < timedelta(seconds=602)
    assert (await shop.client.get(f"/v1/reservations/{held}")).json == answer.json


async def test_extend_of_a_commitment(shop: Shop) -> None:
    """A placed order has no deadline to extend."""
    held = await shop.held([line(await shop.new_sku(1))])
    await shop.act(held, "confirm")
    answer = await shop.act(held, "extend", {"ttl_seconds": 60})
    expect_problem(answer, 409, "already-committed")


async def test_read(shop: Shop, client: Client) -> None:
    """A reservation reads as it was answered."""
    answer = await shop.reserve([line(await shop.new_sku(1))], key=(key := unique("key")))
    read = await client.get(f"/v1/reservations/{key}")
    assert (read.status, read.json) == (200, answer.json)
    assert read.header("idempotent-replayed") is None


async def test_unknown_reservation(shop: Shop, client: Client) -> None:
    """What was never reserved, or was refused, is not there for any of these."""
    refused = unique("refused")
    assert (await shop.reserve([line(await shop.new_sku(0))], key=refused)).status == 409
    for reservation_id in ("never", refused):
        answers = [
            await client.get(f"/v1/reservations/{reservation_id}"),
            await shop.act(reservation_id, "confirm"),
            await shop.act(reservation_id, "release"),
            await shop.act(reservation_id, "extend", {"ttl_seconds": 60}),
        ]
        for answer in answers:
            problem = expect_problem(answer, 404, "unknown-reservation")
            assert reservation_id in problem["detail"]


async def test_shipped(shop: Shop) -> None:
    """An order that has left can be cancelled no more; what comes back is a return."""
    sku = await shop.new_sku(2)
    held = await shop.held([line(sku, 2)])
    await shop.act(held, "confirm")
    await shop.move("shipment", [line(sku, 2, "NORTH")], reservation_id=held)
    assert await shop.state(held) == "shipped"
    expect_problem(await shop.act(held, "release"), 409, "already-shipped")
    await shop.settles(sku, {"NORTH": {"on_hand": 0, "committed": 0, "available": 0}})
    await shop.move("return", [line(sku, 2, "NORTH")], reservation_id=held)
    assert await shop.state(held) == "returned"
    await shop.settles(sku, {"NORTH": {"on_hand": 2, "available": 2}})
