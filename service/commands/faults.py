"""What stopped a command, as one sentence."""

import errno

import asyncpg
from redis.exceptions import RedisError

from allocation.errors import EngineError
from service.api.problems import Problem
from service.embedded.errors import StartError
from service.settings import SettingsError

FAULTS = (
    SettingsError,
    StartError,
    EngineError,
    Problem,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    RedisError,
    OSError,
)


def sentence_of(fault: Exception) -> str:
    """Say what stopped a command; no sentence has an address with its password, or a stack."""
    match fault:
        case Problem():
            return f"{fault.kind.title} {fault.detail}".strip()
        case EngineError():
            return str(fault) or (type(fault).__doc__ or "").splitlines()[0]
        case asyncpg.PostgresError() | asyncpg.InterfaceError() | asyncpg.InternalClientError():
            return _postgres_sentence(fault)
        case RedisError():
            return f"Redis gave up: {_first_line(fault)}."
        case OSError():
            full = fault.errno == errno.ENOSPC
            reason = "no space is left on the disk" if full else _first_line(fault)
            return f"The system refused: {reason}."
        case _:
            return str(fault)


def _postgres_sentence(fault: Exception) -> str:
    match fault:
        case asyncpg.UndefinedTableError():
            return "The database lacks this version's tables; run `ringfence migrate` first."
        case asyncpg.DiskFullError():
            return "PostgreSQL has no space left on its disk."
        case _:
            return f"PostgreSQL gave up: {_first_line(fault)}."


def _first_line(fault: Exception) -> str:
    return (str(fault) or type(fault).__name__).splitlines()[0].rstrip(".")
