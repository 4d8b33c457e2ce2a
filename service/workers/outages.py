"""Tells of a server that is away: one line, once, whoever of the workers of a process meets it first."""

import logging

import asyncpg

from allocation.errors import NothingDone, OutcomeUnknown

_LOGGER = logging.getLogger(__name__)

# How the drivers and the engine say that a server is away, or about to be. Whatever else they raise is our fault.
AWAY = (
    NothingDone,
    OutcomeUnknown,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)


class Outages:
    """The faults that are under way: each lasts until the worker that met it has worked again."""

    def __init__(self) -> None:
        self._waiting: set[str] = set()
        self._told: set[tuple[str, type[Exception]]] = set()

    def note(self, worker: str, fault: Exception) -> None:
        """Tell of a fault that a worker met, where it is not known yet."""
        if isinstance(fault, AWAY):
            if not self._waiting:
                _LOGGER.warning("A server is away, and worker %s waits: %s", worker, _line(fault))
            self._waiting.add(worker)
        elif (worker, type(fault)) not in self._told:
            self._told.add((worker, type(fault)))
            _LOGGER.warning("The worker %s met a fault and goes on.", worker, exc_info=fault)

    def end(self, worker: str) -> None:
        """Note that a worker has worked."""
        self._waiting.discard(worker)
        self._told = {told for told in self._told if told[0] != worker}


def _line(fault: Exception) -> str:
    text = " ".join(str(fault).split())
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__
