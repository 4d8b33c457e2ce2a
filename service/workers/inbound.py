"""Applies what warehouses have sent: once, in the order of arrival, whatever happens on the way."""

import asyncio
import logging

from allocation.errors import EngineError
from allocation.ports import Decider
from service.api.problems import Problem
from service.api.stock import apply_movement
from service.warehouses.inbox import Applied, Dead, Delivery, Fate, Inbox, Waiting
from service.warehouses.port import Untranslatable
from service.warehouses.sources import SourceRing

_LOGGER = logging.getLogger(__name__)

DELIVERIES_PER_RUN = 32
# Every answer of the pipeline comes within seconds, and a long movement asks for many. What gets none must not
# keep its claim, and with it a transaction, for ever.
APPLY_SECONDS_MAX = 30.0
RETRY_SECONDS = 0.1
RETRY_SECONDS_MAX = 60.0


class Inbound:
    """The duty of the worker. Several processes may do it at once."""

    def __init__(
        self,
        inbox: Inbox,
        sources: SourceRing,
        pipeline: Decider,
        *,
        apply_seconds_max: float = APPLY_SECONDS_MAX,
    ) -> None:
        self._inbox, self._sources, self._pipeline = inbox, sources, pipeline
        self._apply_seconds_max = apply_seconds_max

    async def run_once(self) -> int:
        """Apply the oldest deliveries that wait, and say how many are settled.

        A movement is applied once per event id, so a crash before its delivery is marked costs a repeat only.
        """
        async with self._inbox.claimed(DELIVERIES_PER_RUN) as claim:
            # All at once, so that they share calls to the gate; each submits before the next one starts.
            fates = await asyncio.gather(*map(self._apply, claim.deliveries))
            for delivery, fate in zip(claim.deliveries, fates, strict=True):
                await claim.settle(delivery, fate)
        return sum(not isinstance(fate, Waiting) for fate in fates)

    async def _apply(self, delivery: Delivery) -> Fate:
        try:
            async with asyncio.timeout(self._apply_seconds_max):
                return await self._translate_and_apply(delivery)
        except Problem as problem:
            return Dead(f"{problem.kind.slug}: {problem.detail or problem.kind.title}")
        except (EngineError, TimeoutError) as fault:
            doubled = RETRY_SECONDS * 2.0 ** min(delivery.attempts, 20)
            return Waiting(type(fault).__name__, min(RETRY_SECONDS_MAX, doubled))
        except Exception as error:  # one delivery that meets a bug of ours must not stop the others
            _LOGGER.exception("Delivery %d met a fault of our own.", delivery.id)
            return Dead(f"internal-error: {type(error).__name__}")

    async def _translate_and_apply(self, delivery: Delivery) -> Fate:
        warehouse = self._sources.find(delivery.source).warehouse
        translation = warehouse.translate(delivery.source, delivery.delivery_id, delivery.body)
        if isinstance(translation, Untranslatable):
            return Dead(translation.reason)
        for movement in translation.movements:
            await apply_movement(self._pipeline, movement, delivery.received_at_ms)
        return Applied()
