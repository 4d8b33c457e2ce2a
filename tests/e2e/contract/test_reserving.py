"""What reserving answers, field by field and header by header."""

from datetime import UTC, datetime, timedelta

import pytest
from e2e.contract.http_client import Client
from e2e.contract.shop import Shop, expect_lack, expect_problem, line, unique


async def test_held(shop: Shop) -> None:
    """A reservation is answered 201 with its id, state, channel, lines and deadline, and no more."""
    sku = await shop.new_sku(5)
    before = datetime.now(UTC)
    answer = await shop.reserve([line(sku, 2)], key=(key := unique("key")), ttl_seconds=60)
    assert answer.status == 201
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == str(len(answer.body))
    assert answer.header("idempotent-replayed") is None
    expires_at = answer.json["expires_at"]
    assert answer.json == {
        "reservation_id": key,
        "state": "held",
        "channel": "web",
        "lines": [{"sku": sku, "quantity": 2, "location": "NORTH"}],
        "expires_at": expires_at,
    }
    assert expires_at.endswith("Z")
    lasts = datetime.fromisoformat(expires_at) - before
    assert timedelta(seconds=59) < lasts < timedelta(seconds=62)
    await shop.settles(sku, {"NORTH": {"on_hand": 5, "reserved": 2, "available": 3}})


async def test_deadline_by_default(shop: Shop) -> None:
    """A hold lives 900 seconds where the request says nothing."""
    sku = await shop.new_sku(1)
    before = datetime.now(UTC)
    answer = await shop.reserve([line(sku)])
    lasts = datetime.fromisoformat(answer.json["expires_at"]) - before
    assert timedelta(seconds=899) < lasts < timedelta(seconds=902)


async def test_id_in_the_body(shop: Shop, client: Client) -> None:
    """Without the header, the reservation_id of the body is the key; with both, the header is."""
    sku = await shop.new_sku(5)
    body = {"channel": "web", "lines": [line(sku)], "reservation_id": (inner := unique("body"))}
    assert (await client.post("/v1/reservations", body)).json["reservation_id"] == inner
    outer = unique("header")
    answer = await client.post("/v1/reservations", body, outer)
    assert (answer.status, answer.json["reservation_id"]) == (201, outer)


async def test_no_key(shop: Shop, client: Client) -> None:
    """A reservation without a key of any kind is refused."""
    sku = await shop.new_sku(1)
    body = {"channel": "web", "lines": [line(sku)]}
    expect_problem(await client.post("/v1/reservations", body), 400, "invalid-request")


async def test_insufficient(shop: Shop) -> None:
    """More than there is, is refused with what each SKU lacks; nothing is held."""
    plenty, scarce = await shop.new_sku(9), await shop.new_sku({"NORTH": 2, "SOUTH": 1})
    answer = await shop.reserve([line(plenty, 1), line(scarce, 4)])
    expect_lack(answer, scarce, 4, 3)
    assert await shop.available(plenty) == 9
    assert await shop.available(scarce) == 3


async def test_insufficient_for_lack_of_goods(shop: Shop) -> None:
    """Where nobody else holds anything, the refusal says that there is no more on hand."""
    sku = await shop.new_sku(3)
    assert (await shop.reserve([line(sku, 4)])).json["lines"][0]["limited_by"] == "on_hand"


async def test_insufficient_for_holds_of_others(shop: Shop) -> None:
    """Where others hold the units, the refusal says so."""
    sku = await shop.new_sku(2)
    await shop.held([line(sku, 2)])
    answer = await shop.reserve([line(sku)])
    expect_lack(answer, sku, 1, 0)
    assert answer.json["lines"][0]["limited_by"] == "reserved"


async def test_lines_of_one_sku_are_summed(shop: Shop) -> None:
    """Two lines of one SKU ask for their sum, so that a cart cannot oversell by repeating itself."""
    sku = await shop.new_sku(3)
    answer = await shop.reserve([line(sku, 2), line(sku, 2)])
    expect_lack(answer, sku, 4, 3)
    answer = await shop.reserve([line(sku, 2), line(sku, 1)])
    assert answer.json["lines"] == [{"sku": sku, "quantity": 3, "location": "NORTH"}]


async def test_refusal_is_remembered(shop: Shop) -> None:
    """The same key is refused again with the same words, also when stock has come meanwhile."""
    sku = await shop.new_sku(1)
    first = await shop.reserve([line(sku, 2)], key=(key := unique("key")))
    await shop.move("receipt", [line(sku, 5, "NORTH")])
    again = await shop.reserve([line(sku, 2)], key=key)
    assert (again.status, again.json) == (first.status, first.json)
    assert (await shop.reserve([line(sku, 2)])).status == 201


async def test_unknown(shop: Shop) -> None:
    """An unknown SKU, channel or location is named in the refusal."""
    sku = await shop.new_sku(1)
    problem = expect_problem(await shop.reserve([line("NEVER")]), 422, "unknown-sku")
    assert "NEVER" in problem["detail"]
    answer = await shop.reserve([line(sku)], channel="nowhere")
    assert "nowhere" in expect_problem(answer, 422, "unknown-channel")["detail"]
    answer = await shop.reserve([line(sku, 1, "MOON")])
    assert "MOON" in expect_problem(answer, 422, "unknown-location")["detail"]
    # EAST exists, but `web` does not source from it.
    expect_problem(await shop.reserve([line(sku, 1, "EAST")]), 422, "unknown-location")
    assert await shop.available(sku) == 1


async def test_refused_request_may_be_repeated(shop: Shop) -> None:
    """A key whose request named an unknown SKU is free for the same request once the SKU is there."""
    sku, key = unique("LATER"), unique("key")
    expect_problem(await shop.reserve([line(sku)], key=key), 422, "unknown-sku")
    await shop.client.put(f"/v1/skus/{sku}", {})
    await shop.move("receipt", [line(sku, 1, "NORTH")])
    assert (await shop.reserve([line(sku)], key=key)).status == 201


async def test_partial(shop: Shop) -> None:
    """With `partial` a cart gets as much of each line as there is, and is refused only for nothing."""
    some, none = await shop.new_sku(2), await shop.new_sku(0)
    answer = await shop.reserve([line(some, 5), line(none, 1)], partial=True)
    assert answer.status == 201
    assert answer.json["lines"] == [{"sku": some, "quantity": 2, "location": "NORTH"}]
    answer = await shop.reserve([line(some, 5), line(none, 1)], partial=True)
    assert expect_problem(answer, 409, "insufficient-stock", lines=answer.json["lines"])


async def test_order_of_locations(shop: Shop) -> None:
    """A line is served from the channel's locations in order, and split where one has too little."""
    sku = await shop.new_sku({"NORTH": 2, "SOUTH": 3, "EAST": 9})
    answer = await shop.reserve([line(sku, 4)])
    assert answer.json["lines"] == [
        {"sku": sku, "quantity": 2, "location": "NORTH"},
        {"sku": sku, "quantity": 2, "location": "SOUTH"},
    ]
    assert await shop.available(sku) == 1
    expect_lack(await shop.reserve([line(sku, 2)]), sku, 2, 1)


async def test_pin(shop: Shop) -> None:
    """A line with a location is served from there and nowhere else, before lines that may go anywhere."""
    sku = await shop.new_sku({"NORTH": 2, "SOUTH": 2})
    answer = await shop.reserve([line(sku, 2), line(sku, 2, "NORTH")])
    assert sorted(answer.json["lines"], key=lambda held: held["location"]) == [
        {"sku": sku, "quantity": 2, "location": "NORTH"},
        {"sku": sku, "quantity": 2, "location": "SOUTH"},
    ]
    other = await shop.new_sku({"NORTH": 1, "SOUTH": 5})
    answer = await shop.reserve([line(other, 2, "NORTH")])
    expect_lack(answer, other, 2, 1)


async def test_replaces(shop: Shop) -> None:
    """A shopper's own hold makes way for the one that replaces it, in one step."""
    sku = await shop.new_sku(3)
    first = await shop.held([line(sku, 3)])
    answer = await shop.reserve([line(sku, 2)], replaces=first)
    assert answer.status == 201
    replaced = (await shop.client.get(f"/v1/reservations/{first}")).json
    assert replaced["state"] == "released"
    assert replaced["replaced_by"] == answer.json["reservation_id"]
    expect_problem(await shop.act(first, "confirm"), 409, "hold-lost")
    assert await shop.available(sku) == 1


async def test_replacement_that_fails(shop: Shop) -> None:
    """Where the new cart cannot be held, the old hold stays."""
    sku = await shop.new_sku(3)
    first = await shop.held([line(sku, 3)])
    answer = await shop.reserve([line(sku, 4)], replaces=first)
    expect_problem(answer, 409, "insufficient-stock", lines=answer.json["lines"])
    assert await shop.state(first) == "held"
    expect_problem(await shop.reserve([line(sku)], replaces="nobody"), 404, "unknown-reservation")
    await shop.act(first, "confirm")
    expect_problem(await shop.reserve([line(sku)], replaces=first), 409, "already-committed")
    key = unique("key")
    expect_problem(await shop.reserve([line(sku)], key=key, replaces=key), 400, "invalid-request")


@pytest.mark.parametrize(
    "key",
    [
        "0190163d-8694-739b-aea5-966c26f8ad91",  # UUIDv7 of June 2024
        "01J0B3V1M4QZ4QJ2X9G6T0K5ZA",  # ULID of June 2024
    ],
)
async def test_expired_key(shop: Shop, key: str) -> None:
    """A key that says itself that it is older than the retention is never executed."""
    sku = await shop.new_sku(1)
    expect_problem(await shop.reserve([line(sku)], key=key), 410, "idempotency-key-expired")
    assert await shop.available(sku) == 1


async def test_most_lines(shop: Shop) -> None:
    """A cart of 1,000 lines is held whole; one more line is too large."""
    sku = await shop.new_sku(1_001)
    answer = await shop.reserve([line(sku)] * 1_000)
    assert answer.json["lines"] == [{"sku": sku, "quantity": 1_000, "location": "NORTH"}]
    expect_problem(await shop.reserve([line(sku)] * 1_001), 413, "too-large")
