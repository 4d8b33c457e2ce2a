"""The request of the ordinary routes: its body is bounded and decoded as on the hot path."""

from functools import cache
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.types import Empty

from service.api.bodies import read_body
from service.api.exchange import decode, read_headers


class JsonRequest(Request[Any, Any, State]):
    """Litestar's own would take "1" for a number, and would wait for a slow body for ever."""

    async def body(self) -> bytes:
        """Read the whole body. Raises the problem where it is too large, too slow, or ends early."""
        state = self._connection_state
        if state.body is Empty:
            bytes_max = self.route_handler.resolve_request_max_body_size()
            assert isinstance(bytes_max, int), "Bug: bodies without a limit"
            length = read_headers(self.scope).content_length
            state.body = await read_body(length, self.receive, bytes_max)
        return state.body

    async def json(self) -> Any:
        """Decode the body into the struct that the handler asks for, without any leniency."""
        state = self._connection_state
        if state.json is Empty:
            field = self.route_handler.parsed_data_field
            decoder = _decoder_of(Any if field is None else field.annotation)
            state.json = decode(decoder, read_headers(self.scope), await self.body())
        return state.json


@cache
def _decoder_of(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)
