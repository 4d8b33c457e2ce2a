"""A way between the service and a server that a test can freeze, cut and mend."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit


class Way:
    """Carries bytes both ways; frozen it carries none, cut it refuses and drops connections."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._open = True
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()

    def freeze(self) -> None:
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def cut(self) -> None:
        """Drop what is connected, and refuse whoever comes."""
        self._open = False
        for writer in self._writers:
            writer.transport.abort()

    def mend(self) -> None:
        self._open = True

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection."""
        if not self._open:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._target)
        except OSError:
            # The server is away; whoever asked for it finds that out.
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        for source, to in ((reader, server_writer), (server_reader, writer)):
            task = asyncio.create_task(self._carry(source, to))
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)

    async def _carry(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65_536):
                await self._flowing.wait()
                to.write(data)
                await to.drain()
        except ConnectionError:
            pass
        finally:
            self._writers.discard(to)
            to.transport.abort()

    async def close(self) -> None:
        self.cut()
        self.thaw()
        await asyncio.gather(*self._carrying, return_exceptions=True)


@asynccontextmanager
async def way_to(url: str) -> AsyncIterator[tuple[str, Way]]:
    """Open a way to a server; give the URL that leads over it."""
    parts = urlsplit(url)
    default = 6379 if parts.scheme.startswith("redis") else 5432
    way = Way(parts.hostname or "127.0.0.1", parts.port or default)
    server = await asyncio.start_server(way.accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    account = parts.netloc.rpartition("@")[0]
    place = f"{account}@127.0.0.1:{port}" if account else f"127.0.0.1:{port}"
    try:
        yield urlunsplit(parts._replace(netloc=place)), way
    finally:
        server.close()
        await way.close()
