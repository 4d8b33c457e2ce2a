"""Carts over several shards that somebody has begun and not ended, and claims that nothing needs any more."""

from service.engine import Engine
from service.settings import Settings
from service.workers.loop import IDLE_SECONDS, Duty
from service.workers.pruning import IDLE_SECONDS as PRUNING_SECONDS


def settling_duties(engine: Engine, settings: Settings) -> dict[str, tuple[Duty, float]]:
    """Give what workers do about them, and how often; nothing where there is one shard."""
    settling = engine.settling
    if settling is None:
        return {}

    async def forget() -> int:
        return await settling.forget(max(settings.key_retention_ms, settings.event_retention_ms))

    return {
        "settling": (settling.run_once, IDLE_SECONDS),
        "forgetting": (forget, PRUNING_SECONDS),
    }
