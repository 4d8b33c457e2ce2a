"""What the proxies did, for whoever has to find out why a run turned red."""

import time
from pathlib import Path

import msgspec
from msgspec import Struct

TRACE_NAME = "proxy.jsonl"


class Event(Struct, frozen=True, omit_defaults=True):
    """One thing that happened to a connection, or to all of a link where `connection` is 0."""

    seconds: float
    link: str
    what: str
    connection: int = 0
    # What had come from either side by then, and what of it had not been passed on.
    requests_bytes: int = 0
    replies_bytes: int = 0
    held_bytes: int = 0
    note: str = ""


class Trace:
    """The events of all links of a run, in order. Times are those of the machine until they are written."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._connections = 0

    def next_connection(self) -> int:
        """Give a connection its number."""
        self._connections += 1
        return self._connections

    def note(self, link: str, what: str, **known: int | str) -> None:
        """Remember that something happens now."""
        self.events.append(Event(time.monotonic(), link, what, **known))

    def write(self, path: Path, started: float) -> None:
        """Write a line for each event, with the seconds since the start of the run."""
        with path.open("wb") as file:
            for event in self.events:
                seconds = round(event.seconds - started, 4)
                told = msgspec.structs.replace(event, seconds=seconds)
                file.write(msgspec.json.encode(told) + b"\n")
