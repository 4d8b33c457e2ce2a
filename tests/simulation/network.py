"""Servers that are reached over a network which loses, delays and reorders, all of it drawn from the seed."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from simulation.loop import Lane, SimulationLoop

Result = TypeVar("Result")
# As long as the clients of the real servers wait.
TIMEOUT_SECONDS = 5.0
Note = Callable[..., None]


class ConnectionLostError(Exception):
    """The call or its reply got lost; nobody knows which."""


@dataclass
class Weather:
    """How the network is: seconds of a way, and how often what goes wrong, of one."""

    way_seconds: float
    call_lost: float = 0.0
    reply_lost: float = 0.0
    held_up: float = 0.0

    def clear_up(self) -> None:
        """Let nothing more go wrong."""
        self.call_lost = self.reply_lost = self.held_up = 0.0


class Server:
    """A machine that answers one call after another, while it is up and not frozen."""

    def __init__(self, name: str, loop: SimulationLoop, random: Random, note: Note) -> None:
        self.name, self.up, self.frozen = name, True, False
        self.weather = Weather(0.001)
        self.loop, self.random, self.note = loop, random, note
        # Every end of the server ends its connections.
        self.incarnation = 0
        self._held: list[Callable[[], None]] = []
        self.context = loop.context_of(Lane(name))

    async def call(  # noqa: C901 - the way there, the work and the way back
        self, caller: str, what: str, act: Callable[[], Result]
    ) -> Result:
        """Have something done, at once and undivided, and give what came of it. Raises ConnectionLostError."""
        loop, incarnation = self.loop, self.incarnation
        reply = loop.create_future()
        way, back, fate = self._draw()
        act_at_server: Callable[[], Any] = act

        def finish(result: Any, fault: Exception | None) -> None:
            if not reply.done():
                if fault is None:
                    reply.set_result(result)
                else:
                    reply.set_exception(fault)

        def lose(seconds: float) -> None:
            loop.call_later(seconds, finish, None, ConnectionLostError())

        def work() -> None:
            if not self.up or incarnation != self.incarnation:
                lose(back)
                return
            try:
                result, fault = act_at_server(), None
            except Exception as raised:  # noqa: BLE001 - the caller is told, as by a driver
                result, fault = None, raised
            self.note(caller, self.name, what, fate, fault or result)
            if fate == "reply lost":
                lose(back)
            else:
                loop.call_later(back, finish, result, fault)

        def arrive() -> None:
            if fate == "call lost":
                self.note(caller, self.name, what, fate)
                lose(back)
            elif self.frozen and self.up and incarnation == self.incarnation:
                self._held.append(work)
            else:
                work()

        loop.call_later(way, arrive, context=self.context)
        limit = loop.call_later(
            TIMEOUT_SECONDS, finish, None, ConnectionLostError(), context=self.context
        )
        try:
            return await reply
        finally:
            limit.cancel()

    def freeze(self) -> None:
        """Do nothing until thawed; what arrives waits, and is done then."""
        self.frozen = True

    def thaw(self) -> None:
        """Go on, with all that has arrived meanwhile."""
        self.frozen = False
        held, self._held = self._held, []
        for work in held:
            self.context.copy().run(work)

    def kill(self) -> None:
        """End at once: what is on its way is lost, and what was done may not be heard of."""
        self.up = False
        self.incarnation += 1
        self.thaw()

    def start(self) -> None:
        """Take calls again."""
        self.up = True

    def _draw(self) -> tuple[float, float, str]:
        weather, draw = self.weather, self.random.random
        way, back = weather.way_seconds * (0.2 + draw()), weather.way_seconds * (0.2 + draw())
        luck = draw()
        if luck < weather.call_lost:
            return way, back + self._silence(), "call lost"
        luck -= weather.call_lost
        if luck < weather.reply_lost:
            return way, back + self._silence(), "reply lost"
        luck -= weather.reply_lost
        if luck < weather.held_up:
            # Beyond the caller's patience at times: what it gave up is then done late.
            return way + draw() * 1.5 * TIMEOUT_SECONDS, back, "held up"
        return way, back, ""

    def _silence(self) -> float:
        """Say after how many more seconds a lost connection is noticed: at once, or at the time-out."""
        return 0.0 if self.random.random() < 0.7 else TIMEOUT_SECONDS
