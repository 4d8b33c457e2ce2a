"""One service of a chosen build on real servers, a client that notes what it is told, and what came of it."""

import asyncio
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import msgspec
from chaos.clocks import ClockedRedis
from chaos.history import FILE_NAME, NOT_NOW, NOTHING, Recorder, Request, judge
from chaos.processes import Service
from chaos.record import FINAL_NAME, LEDGER_NAME, Record, read_record
from chaos.replicas import RedisPair
from chaos.running import dump_ledger, read_gate
from chaos.warehouse import SOURCE, await_empty_inbox, read_inbox
from e2e.contract.http_client import Answer, Client, request_bytes
from msgspec import Raw
from redis.asyncio import Redis
from signing import signed_headers

from service.embedded.server import EmbeddedServer
from service.embedded.servers import EmbeddedServers
from service.keys import KeyStore
from service.preparation import migrate_database
from service.warehouses.sources import SourceStore

BUILDS = Path(__file__).with_name("builds.py")
PLACE, CHANNEL, SKU = "NORTH", "web", "HOT"
WAIT_SECONDS_MAX = 30.0
ANSWER_SECONDS_MAX = 4.0
PAUSE_SECONDS = 0.05
# A machine may be slow; what is looked for here is not.
ROOM = 6.0


class Scene:
    """A service under way."""

    def __init__(
        self, pair: RedisPair, postgres: EmbeddedServer, service: Service, out: Path
    ) -> None:
        self.pair, self.postgres, self.service = pair, postgres, service
        self.database_url = self.api_key = self.secret = ""
        self._out, self._started = out, time.monotonic()
        self._recorder = Recorder(out / FILE_NAME, self._started)
        self._events = 0

    @property
    def redis(self) -> ClockedRedis:
        """The Redis that the service knows."""
        return self.pair.in_use

    async def open(self, units: int) -> None:
        """Wait for the service, and give it something to sell."""
        await self.until_ready()
        for kind, key, path, body in (
            ("configure", PLACE, f"/v1/locations/{PLACE}", {}),
            ("configure", CHANNEL, f"/v1/channels/{CHANNEL}", {"locations": [PLACE]}),
            ("configure", SKU, f"/v1/skus/{SKU}", {}),
        ):
            await self.ask(kind, key, "PUT", path, body)
        await self.move("receipt", units)

    async def until_ready(self) -> None:
        async with asyncio.timeout(WAIT_SECONDS_MAX), self._client() as client:
            while True:
                try:
                    if (await client.get("/health/ready")).status == 200:
                        return
                except OSError:
                    pass
                await asyncio.sleep(PAUSE_SECONDS)

    # What the client does.

    async def reserve(self, key: str, *lines: dict[str, Any], ttl_seconds: int = 900) -> bool:
        """Ask for a cart of the one thing that there is; say whether it is held."""
        body = {
            "channel": CHANNEL,
            "lines": [{"sku": SKU} | line for line in lines or ({"quantity": 1},)],
            "ttl_seconds": ttl_seconds,
        }
        return await self.ask("reserve", key, "POST", "/v1/reservations", body) is not None

    async def read(self, key: str) -> dict[str, Any]:
        """Read a reservation."""
        return await self.ask("read", key, "GET", f"/v1/reservations/{key}")

    async def move(self, kind: str, units: int, **fields: str) -> None:
        """Tell of a movement."""
        self._events += 1
        event = f"event-{self._events}"
        lines = [{"sku": SKU, "location": PLACE, "quantity": units}]
        body = {"source": "wms", "event_id": event, "kind": kind, "lines": lines, **fields}
        assert await self.ask("move", event, "POST", "/v1/movements", body)

    async def deliver(self, delivery_id: str, units: int) -> None:
        """Deliver a signed receipt until it is taken."""
        line = {"sku": SKU, "location": PLACE, "quantity": units}
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        body = {"kind": "receipt", "lines": [line], "occurred_at": moment}
        await self.ask("deliver", delivery_id, "POST", f"/v1/webhooks/{SOURCE}", body)

    async def ask(self, kind: str, key: str, method: str, path: str, body: Any = None) -> Any:
        """Ask until the answer is definite; give it, None where it is no."""
        self._recorder.operations += 1
        number = self._recorder.operations
        sent = NOTHING if body is None else Raw(msgspec.json.encode(body))
        operation = Request(number, "client", kind, key, sent, method, path)
        async with asyncio.timeout(WAIT_SECONDS_MAX), self._client() as client:
            while True:
                verdict, slug, answer = await self._attempt(client, operation)
                if verdict == "ok":
                    return answer
                if verdict == "fail" and slug not in NOT_NOW:
                    return None
                await asyncio.sleep(PAUSE_SECONDS)

    async def _attempt(self, client: Client, operation: Request) -> tuple[str, str, Any]:
        attempt = self._recorder.begin(operation, self.service.name)
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                answer = await self._send(client, operation)
        except (OSError, TimeoutError) as fault:
            self._recorder.end(attempt, "info", reason=type(fault).__name__)
            return "info", "", None
        found = answer.json
        verdict, slug = judge(answer.status, found)
        again = answer.header("idempotent-replayed") == "true"
        again = again or (isinstance(found, dict) and found.get("duplicate") is True)
        self._recorder.end(
            attempt, verdict, status=answer.status, answer=found, slug=slug, replayed=again
        )
        return verdict, slug, found

    async def _send(self, client: Client, operation: Request) -> Answer:
        path, body = operation.path, operation.body
        if operation.kind == "deliver":
            packed = msgspec.json.encode(body)
            headers = signed_headers(self.secret, operation.key, packed)
            return await client.send(request_bytes("POST", path, list(headers.items()), packed))
        match operation.method:
            case "GET":
                return await client.get(path)
            case "PUT":
                return await client.put(path, body)
            case _:
                key = operation.key if operation.kind == "reserve" else None
                return await client.post(path, body, key)

    def _client(self) -> Client:
        return Client(self.service.port, self.api_key)

    # What came of it.

    def close(self) -> None:
        """End the service, however far it has come."""
        self.service.kill()
        self._recorder.close()

    async def end(self) -> Record:
        """Read the last figures, stop the service, and give everything that is known."""
        final: dict[str, Any] = {"room": ROOM, "faults": [], "unresolved": []}
        began = time.monotonic()
        await self.until_ready()
        final["ready_seconds"] = final["agreed_seconds"] = time.monotonic() - began
        await await_empty_inbox(self.database_url, WAIT_SECONDS_MAX)
        final["inbox"] = await read_inbox(self.database_url)
        final["figures_read_ms"] = int(time.time() * 1000)
        stock = await self.ask("stock", SKU, "GET", f"/v1/stock/{SKU}")
        final["figures"] = {self.service.name: {SKU: stock}}
        final["served_until_ms"] = int(time.time() * 1000)
        final["exit_statuses"] = {self.service.name: [await self.service.stop()]}
        final["ended_by_themselves"] = {self.service.name: self.service.ended_by_itself}
        self.close()
        final["gate"] = await read_gate(self.redis.url)
        final["head"] = await dump_ledger(self.database_url, self._out / LEDGER_NAME)
        (self._out / FINAL_NAME).write_bytes(msgspec.json.encode(final))
        return read_record(self._out)


@asynccontextmanager
async def scene(
    mutant: str, servers: EmbeddedServers, pair: RedisPair, out: Path, units: int
) -> AsyncGenerator[Scene]:
    """Open a scene on a new ledger and an empty gate; `mutant` is "none" for the service as it is."""
    assert servers.postgres is not None
    await _forget(pair)
    pair.in_use.set_clock(0.0)
    url = await _new_database(servers.database_url)
    command = (sys.executable, str(BUILDS), mutant, "serve")
    service = Service("service-0", pair.in_use.url, url, out / "service-0.log", command)
    opened = Scene(pair, servers.postgres, service, out)
    async with asyncpg.create_pool(url, min_size=1, max_size=1) as pool:
        opened.api_key = (await KeyStore(pool).add("scene", ["admin"], [])).text
        opened.secret = await SourceStore(pool).add(SOURCE) or ""
    opened.database_url = url
    service.start()
    try:
        await opened.open(units)
        yield opened
    finally:
        opened.close()


async def _forget(pair: RedisPair) -> None:
    redis: Any = Redis.from_url(pair.in_use.url)
    await redis.flushall()
    await redis.aclose()


async def _new_database(url: str) -> str:
    name = f"scene_{uuid4().hex[:8]}"
    connection = await asyncpg.connect(url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
    await migrate_database(url)
    return url
