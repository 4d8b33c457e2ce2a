"""Carts over several shards that somebody has begun and not ended, and claims that nothing needs any more."""

from service.engine import Engine
from service.settings import Settings
from service.workers.loop import Loop
from service.workers.pruning import IDLE_SECONDS


def settling_loops(engine: Engine, settings: Settings) -> dict[str, Loop]:
    """Give the workers; none where there is one shard."""
    settling = engine.settling
    if settling is None:
        return {}

    async def forget() -> int:
        return await settling.forget(max(settings.key_retention_ms, settings.event_retention_ms))

    return {
        "settling": Loop("settling", settling.run_once),
        "forgetting": Loop("forgetting", forget, idle_seconds=IDLE_SECONDS),
    }
