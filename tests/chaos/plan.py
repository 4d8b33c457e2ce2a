"""What will go wrong, drawn from the seed alone and set off by the number of operations, never by the clock."""

from collections.abc import Sequence
from random import Random

from msgspec import Struct

SERVICES = 3
# For each kind of fault what it may strike, and between which bounds its length in seconds is drawn.
KINDS: dict[str, tuple[str, float, float]] = {
    "service-kill": ("service", 0.0, 0.5),
    "service-pause": ("service", 0.1, 5.0),
    "service-restart": ("service", 0.0, 0.2),
    "redis-kill": ("redis", 0.0, 0.5),
    "redis-power-loss": ("redis", 0.0, 0.5),
    "redis-flush": ("redis", 0.0, 0.0),
    "redis-freeze": ("redis", 0.1, 3.0),
    "redis-failover": ("redis", 0.1, 2.0),
    "redis-functions-lost": ("redis", 0.0, 0.0),
    "redis-disk-full": ("redis", 0.3, 2.0),
    "redis-clock": ("redis", 0.3, 3.0),
    "postgres-kill": ("postgres", 0.0, 0.5),
    "postgres-freeze": ("postgres", 1.0, 3.0),
    "postgres-disk-full": ("postgres", 0.5, 2.0),
    "postgres-cancels": ("postgres", 0.2, 1.0),
    "gate-reply-lost": ("redis-link", 0.0, 0.0),
    "commit-reply-lost": ("postgres-link", 0.0, 0.0),
    "gate-request-twice": ("redis-link", 0.0, 0.0),
    "link-reset": ("link", 0.0, 0.0),
    "link-cut": ("link", 0.2, 3.0),
    "requests-cut": ("link", 0.2, 3.0),
    "replies-cut": ("link", 0.2, 3.0),
    "link-held": ("link", 0.2, 3.0),
    "requests-held": ("link", 0.2, 3.0),
    "link-slow": ("link", 0.5, 3.0),
}
LATENCY_SECONDS = (0.005, 0.3)
# So often a fault does not wait for its own turn but strikes together with the one before.
TOGETHER = 0.3
# Faults begin when there is something to lose, and end while there is still something to do.
FIRST_SHARE, LAST_SHARE = 0.05, 0.95


class Fault(Struct, frozen=True):
    """One thing that goes wrong. `amount` is in 0 to 1 and means what the kind makes of it."""

    at_operation: int
    kind: str
    target: str
    seconds: float
    amount: float


def draw_plan(
    seed: int, operations: int, faults: int, kinds: Sequence[str] = tuple(KINDS)
) -> list[Fault]:
    """Draw the faults of a run: every kind once before any comes again."""
    luck = Random(f"{seed}/plan")  # noqa: S311 - chance, no secret
    first, last = int(operations * FIRST_SHARE), int(operations * LAST_SHARE)
    moments = sorted(luck.randint(first, last) for _ in range(faults))
    plan: list[Fault] = []
    left: list[str] = []
    for moment in moments:
        if not left:
            left = luck.sample(list(kinds), len(kinds))
        kind = left.pop()
        together = plan and luck.random() < TOGETHER
        family, shortest, longest = KINDS[kind]
        plan.append(
            Fault(
                plan[-1].at_operation if together else moment,
                kind,
                _draw_target(luck, family),
                round(luck.uniform(shortest, longest), 3),
                round(luck.random(), 4),
            )
        )
    return plan


def _draw_target(luck: Random, family: str) -> str:
    if family in {"redis", "postgres"}:
        return family
    service = f"service-{luck.randrange(SERVICES)}"
    if family == "service":
        return service
    store = (
        luck.choice(("redis", "postgres")) if family == "link" else family.split("-", maxsplit=1)[0]
    )
    return f"{service}>{store}"
