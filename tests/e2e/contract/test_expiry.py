"""A hold that has expired stands in nobody's way, whether or not it has been swept."""

import asyncio
from datetime import UTC, datetime

from e2e.contract.http_client import Client
from e2e.contract.processes import ADMIN_KEY, ServiceProcess
from e2e.contract.shop import Shop, becomes, expect_problem, line


async def _past(shop: Shop, reservation_id: str) -> None:
    """Wait for the moment at which a hold ends, and not a hundredth of a second longer."""
    answer = await shop.client.get(f"/v1/reservations/{reservation_id}")
    left = datetime.fromisoformat(answer.json["expires_at"]) - datetime.now(UTC)
    await asyncio.sleep(left.total_seconds() + 0.002)


async def test_sellable_again(shop: Shop) -> None:
    """An expired hold is available again within one second, where nobody asks for its stock."""
    sku = await shop.new_sku(1)
    held = await shop.held([line(sku)], ttl_seconds=1)
    assert await shop.available(sku) == 0
    await _past(shop, held)
    await becomes(lambda: shop.available(sku), 1, within_seconds=1.0)
    await becomes(lambda: shop.state(held), "expired", within_seconds=1.0)


async def test_sellable_at_once(shop: Shop) -> None:
    """A sale is not refused for a hold that has expired but was not swept yet."""
    skus = [await shop.new_sku(1) for _ in range(8)]
    held = [await shop.held([line(sku)], ttl_seconds=1) for sku in skus]

    async def sell_again(sku: str, reservation_id: str) -> int:
        await _past(shop, reservation_id)
        return (await shop.reserve([line(sku)])).status

    assert set(await asyncio.gather(*map(sell_again, skus, held))) == {201}


async def test_late_confirmation(shop: Shop) -> None:
    """A late confirmation takes the units again where they are still there."""
    sku = await shop.new_sku({"NORTH": 1, "SOUTH": 1})
    held = await shop.held([line(sku)], ttl_seconds=1)
    await becomes(lambda: shop.state(held), "expired")
    # NORTH has none left, so the units come from where the channel sources next.
    await shop.held([line(sku)])
    answer = await shop.act(held, "confirm", {"order_id": "late"})
    assert answer.status == 200
    assert answer.json["state"] == "committed"
    assert answer.json["lines"] == [{"sku": sku, "quantity": 1, "location": "SOUTH"}]
    await shop.settles(sku, {"SOUTH": {"committed": 1, "available": 0}})


async def test_too_late_confirmation(shop: Shop) -> None:
    """A late confirmation is refused where somebody else has the units by now."""
    sku = await shop.new_sku(1)
    held = await shop.held([line(sku)], ttl_seconds=1)
    await _past(shop, held)
    other = await shop.held([line(sku)])
    problem = expect_problem(await shop.act(held, "confirm"), 409, "hold-lost")
    assert held in problem["detail"]
    expect_problem(await shop.act(held, "extend", {"ttl_seconds": 9}), 409, "hold-lost")
    assert await shop.state(other) == "held"
    await shop.settles(sku, {"NORTH": {"reserved": 1, "committed": 0, "available": 0}})


async def test_extended_in_time(shop: Shop) -> None:
    """An extended hold outlives its first deadline."""
    sku = await shop.new_sku(1)
    held = await shop.held([line(sku)], ttl_seconds=1)
    first = (await shop.client.get(f"/v1/reservations/{held}")).json["expires_at"]
    await shop.act(held, "extend", {"ttl_seconds": 60})
    left = datetime.fromisoformat(first) - datetime.now(UTC)
    await asyncio.sleep(left.total_seconds() + 0.01)
    assert (await shop.reserve([line(sku)])).status == 409
    assert await shop.state(held) == "held"


async def test_confirmed_in_time(service: ServiceProcess) -> None:
    """Where many confirm at the deadline, each is committed, or lost to somebody who has the units."""
    async with Client(service.port, ADMIN_KEY) as client:
        shop = Shop(client)
        skus = [await shop.new_sku(1) for _ in range(10)]
        held = [await shop.held([line(sku)], ttl_seconds=1) for sku in skus]

        async def race(sku: str, reservation_id: str) -> list[int]:
            await _past(shop, reservation_id)
            rival, confirmed = await asyncio.gather(
                shop.reserve([line(sku)]), shop.act(reservation_id, "confirm")
            )
            return sorted([rival.status, confirmed.status])

        for statuses in await asyncio.gather(*map(race, skus, held)):
            assert statuses in ([200, 409], [201, 409])
