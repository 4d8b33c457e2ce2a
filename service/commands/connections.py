"""How a command reaches the servers: by the settings, else those of the `ringfence up` that runs here."""

import asyncio
import os
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import msgspec
import uvloop
from msgspec import Struct

from service.embedded.credentials import load_credentials
from service.embedded.errors import StartError
from service.embedded.postgres_server import DATABASE, USER
from service.embedded.servers import UP_FILE_NAME
from service.engine import Engine, open_engine
from service.preparation import prepare
from service.settings import Settings, SettingsError
from service.suitability import require_suitable_postgres

Result = TypeVar("Result")


class Addresses(Struct, frozen=True):
    """Where the servers are; with their passwords, so never for printing."""

    redis_url: str
    database_url: str

    def __repr__(self) -> str:
        return "Addresses(hidden)"


class _Listening(Struct):
    address: str


class _Up(Struct):
    redis: _Listening | None = None
    postgres: _Listening | None = None


def read_settings() -> Settings:
    """Read the settings of this process."""
    return Settings.from_environment(os.environ)


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a command to its end."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(coroutine)


def named_addresses(settings: Settings) -> Addresses:
    """Give the servers that the settings name. Raises SettingsError where one is missing."""
    if settings.redis_url is None or settings.database_url is None:
        raise SettingsError(
            "Name the servers with RINGFENCE_REDIS_URL and RINGFENCE_DATABASE_URL; "
            "`ringfence up` is the command that brings its own."
        )
    return Addresses(settings.redis_url, settings.database_url)


def addresses(settings: Settings) -> Addresses:
    """Give the servers that the settings name, or that run in the data folder. Raises StartError."""
    redis_url, database_url = settings.redis_url, settings.database_url
    if redis_url is None or database_url is None:
        embedded = _embedded_addresses(settings)
        redis_url, database_url = (
            redis_url or embedded.redis_url,
            database_url or embedded.database_url,
        )
    return Addresses(redis_url, database_url)


def database_url(settings: Settings) -> str:
    """Give the PostgreSQL alone; no Redis has to be known. Raises StartError."""
    return settings.database_url or _embedded_addresses(settings).database_url


@asynccontextmanager
async def open_database() -> AsyncGenerator[asyncpg.Pool]:
    """Reach the PostgreSQL, and let it go in the end."""
    url = database_url(read_settings())
    await require_suitable_postgres(url)
    async with asyncpg.create_pool(url, min_size=1, max_size=2) as pool:
        yield pool


@asynccontextmanager
async def reached_engine(settings: Settings, places: Addresses) -> AsyncGenerator[Engine]:
    """Give pipelines of this process's own, not started yet, beside those of the processes that serve."""
    await prepare(places.redis_url, places.database_url)
    async with open_engine(settings, places.redis_url, places.database_url) as engine:
        yield engine


def _embedded_addresses(settings: Settings) -> Addresses:
    data_dir = settings.data_dir.absolute()
    path = data_dir / UP_FILE_NAME
    try:
        up = msgspec.json.decode(path.read_bytes(), type=_Up)
        credentials = load_credentials(data_dir)
    except FileNotFoundError:
        raise StartError(
            f"Nothing runs on the data folder {data_dir}; start `ringfence up`, or name the servers "
            f"with RINGFENCE_REDIS_URL and RINGFENCE_DATABASE_URL."
        ) from None
    except OSError as error:
        raise StartError(f"The file {error.filename} cannot be read: {error.strerror}.") from None
    except msgspec.MsgspecError:
        raise StartError(f"The file {path} is damaged; start `ringfence up` again.") from None
    redis = f":{credentials.redis.password}@{up.redis.address}" if up.redis else None
    postgres = (
        f"{USER}:{credentials.postgres.password}@{up.postgres.address}" if up.postgres else None
    )
    if (settings.redis_url is None and redis is None) or (
        settings.database_url is None and postgres is None
    ):
        raise StartError(
            f"The `ringfence up` on {data_dir} uses servers that it was given; name the same ones with "
            f"RINGFENCE_REDIS_URL and RINGFENCE_DATABASE_URL."
        )
    return Addresses(f"redis://{redis}/0", f"postgres://{postgres}/{DATABASE}")
