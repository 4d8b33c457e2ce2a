"""The service with one safeguard taken away, as a real process: proof that a check would show that it is gone.

Run as a program it is `ringfence`, of such a build: `builds.py M9 serve`. Nothing of this is in the service. Those
of its safeguards that need no real server are taken away in the simulation (tests/simulation/mutants.py).
"""

import asyncio
import sys
from collections.abc import Callable

from allocation.gate import scripts
from allocation.ledger.postgres_ledger import PostgresLedger
from service.cli import main
from service.warehouses.inbox import Inbox


def _change_library(*changes: tuple[str, str]) -> None:
    """Replace parts of the gate's functions; each must be there, and once."""
    body = scripts._body()
    for safe, unsafe in changes:
        assert body.count(safe) == 1, f"the functions have no such text, or not once: {safe}"
        body = body.replace(safe, unsafe)
    scripts._body = lambda: body


def _believe_run_id() -> None:
    """M3: a server that was another's replica meanwhile is taken for the same, since it never ended."""
    _change_library(
        (
            """    or not string.find(replication, "\\nmaster_replid:" .. replication_id, 1, true)\n""",
            "",
        )
    )


def _allow_weak_commits() -> None:
    """M9: commits are as durable as whoever has set up Postgres likes."""

    async def look_away(_ledger: PostgresLedger, _connection: object) -> None:
        """Look at no setting, and keep none."""

    PostgresLedger._keep_durable = look_away


def _let_redis_expire() -> None:
    """M10: a hold ends when a key of Redis does, by the clock of Redis."""
    held = "  local version = record_decision(KIND.HELD, id)\n"
    end_with_hold = 'redis_call("SET", "ttl:" .. id, "", "PX", string.format("%d", ttl_ms))'
    by_deadline = '"ZRANGEBYSCORE", call.keys[6], 0, call.now_ms, "LIMIT", 0, lines_max'
    by_key = """  for index = #overdue, 1, -1 do
    if redis_call("EXISTS", "ttl:" .. string.sub(overdue[index], 2)) == 1 then
      table.remove(overdue, index)
    end
  end
"""
    _change_library(
        (held, f"{held}  {end_with_hold}\n"),
        (f"({by_deadline})\n", f'("ZRANGEBYSCORE", call.keys[6], 0, "(inf")\n{by_key}'),
    )


def _check_lines_alone() -> None:
    """M12: each line of a cart is compared with the stock as if it were the only one."""
    looked = "    local units = available(record, pool)\n"
    _change_library(
        (
            looked,
            f"""{looked}    for _, line in ipairs(lines) do
      if line[1] == sku and line[3] == location then
        units = units + line[2]
      end
    end
""",
        )
    )


def _count_as_it_comes() -> None:
    """M13: a count is what is on hand when it arrives, whatever has moved since it was taken."""
    _change_library(
        ("quantity + changes_after(prefix, as_of_ms)", "quantity"),
    )


def _obey_the_clock() -> None:
    """M22: the time of the gate is what the clock of Redis shows, whatever time has passed."""
    _change_library(
        (
            "math.min(math.max(call.clock_ms, tonumber(arguments[9])), tonumber(arguments[10]))",
            "call.clock_ms",
        )
    )


def _answer_deliveries_first() -> None:
    """M23: a sender is told that its delivery is stored before it is."""
    store, under_way = Inbox.store, set[asyncio.Task[bool]]()

    async def answer_first(inbox: Inbox, source: str, delivery_id: str, body: bytes) -> bool:
        under_way.add(asyncio.create_task(store(inbox, source, delivery_id, body)))
        return True

    Inbox.store = answer_first


MUTANTS: dict[str, Callable[[], None]] = {
    "M3": _believe_run_id,
    "M9": _allow_weak_commits,
    "M10": _let_redis_expire,
    "M12": _check_lines_alone,
    "M13": _count_as_it_comes,
    "M22": _obey_the_clock,
    "M23": _answer_deliveries_first,
}

if __name__ == "__main__":
    _, name, *arguments = sys.argv
    if name != "none":
        MUTANTS[name]()
    main(arguments)
