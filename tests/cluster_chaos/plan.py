"""What will go wrong with a cluster, drawn from the seed alone and set off by the number of operations."""

from collections.abc import Sequence
from random import Random

from msgspec import Struct

SERVICES = 3
SHARDS = 8
# For each kind of fault what suffers it, and between which bounds its length in seconds is drawn.
KINDS: dict[str, tuple[str, float, float]] = {
    "master-kill": ("cluster", 0.0, 0.5),
    "master-pause": ("cluster", 2.5, 4.0),
    "master-flush": ("cluster", 0.0, 0.0),
    "slot-move": ("cluster", 0.0, 1.0),
    "node-added": ("cluster", 0.3, 1.0),
    "service-kill": ("service", 0.0, 0.5),
    "service-pause": ("service", 0.3, 4.0),
    "postgres-kill": ("postgres", 0.0, 0.5),
    "postgres-cut": ("link", 0.3, 2.0),
    "postgres-held": ("link", 0.3, 2.0),
}
# So often a fault does not wait for its own turn but strikes together with the one before.
TOGETHER = 0.4
# Faults begin when there is something to lose.
FIRST_SHARE, LAST_SHARE = 0.05, 0.95


class Fault(Struct, frozen=True):
    """One thing that goes wrong. `shard` says which master or slot, where it is about one."""

    at_operation: int
    kind: str
    target: str
    seconds: float
    shard: int


def draw_plan(seed: int, operations: int, faults: int, kinds: Sequence[str]) -> list[Fault]:
    """Draw the faults of a run: every kind once before any comes again."""
    luck = Random(f"{seed}/cluster-plan")  # noqa: S311 - chance, no secret
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
        number = luck.randrange(SERVICES)
        target = f"service-{number}" if family in {"service", "link"} else family
        plan.append(
            Fault(
                plan[-1].at_operation if together else moment,
                kind,
                target,
                round(luck.uniform(shortest, longest), 3),
                luck.randrange(SHARDS),
            )
        )
    return plan
