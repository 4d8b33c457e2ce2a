"""The names of a shard's keys: few, fixed, always existing, and all in one slot of a cluster."""

KEY_NAMES = (
    "meta",
    "stock",
    "reservations",
    "events",
    "configuration",
    "deadlines",
    "moves",
    "journal",
)


def shard_keys(shard: int) -> tuple[str, ...]:
    """Give the keys of `shard` in the order in which every script takes them."""
    return tuple(f"{{ringfence:{shard}}}:{name}" for name in KEY_NAMES)
