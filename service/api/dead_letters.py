"""Deliveries that could not be applied: what they said, why, and another try."""

from typing import Annotated

from litestar import Controller, Request, Response, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import Parameter
from msgspec import Struct

from service.api.answers import rfc3339
from service.api.guards import principal_of, requires
from service.api.problems import Problem
from service.warehouses.inbox import Inbox
from service.workers.loop import Loop

PAGE_LETTERS = 50
PAGE_LETTERS_MAX = 500
ID_MAX = 2**63 - 1

Limit = Annotated[int, Parameter(ge=1, le=PAGE_LETTERS_MAX, description="How many at most.")]
Cursor = Annotated[int, Parameter(ge=0, le=ID_MAX, description="`next` of the page before.")]
LetterId = Annotated[int, Parameter(ge=0, le=ID_MAX, description="The dead letter's id.")]


class DeadLetterAnswer(Struct, frozen=True):
    """A delivery that could not be applied, and why; `body_start` is what its body begins with."""

    id: int
    source: str
    webhook_id: str
    received_at: str
    attempts: int
    reason: str
    body_start: str


class DeadLettersAnswer(Struct, frozen=True):
    """A page of dead letters; `next` is the cursor of the page behind it, if there is one."""

    items: list[DeadLetterAnswer]
    next: int | None


class RetryAnswer(Struct, frozen=True):
    """What a delivery is now: received, applied or dead."""

    id: int
    state: str


class DeadLettersController(Controller):
    """The dead letters of every source."""

    path = "/v1/dead-letters"
    tags = ("Dead letters",)

    @get(guards=[requires("admin")])
    async def dead_letters(
        self, inbox: NamedDependency[Inbox], cursor: Cursor = 0, limit: Limit = PAGE_LETTERS
    ) -> DeadLettersAnswer:
        """List dead letters, the oldest first."""
        rows = await inbox.dead(cursor, limit + 1)
        letters = [
            DeadLetterAnswer(
                row["id"],
                row["source"],
                row["webhook_id"],
                rfc3339(int(row["received_at"].timestamp() * 1000)),
                row["attempts"],
                row["reason"],
                row["body_start"].decode(errors="replace"),
            )
            for row in rows[:limit]
        ]
        return DeadLettersAnswer(letters, letters[-1].id if len(rows) > limit else None)

    @post("/{letter_id:int}/retry", status_code=202, guards=[requires("admin", json=False)])
    async def retry(
        self,
        request: Request[None, None, State],
        letter_id: LetterId,
        inbox: NamedDependency[Inbox],
        inbound: NamedDependency[Loop],
    ) -> Response[RetryAnswer]:
        """Let a dead letter be tried again; one that is not dead any more stays as it is."""
        state = await inbox.retry(letter_id, principal_of(request).key_id)
        if state is None:
            raise Problem("not-found", f"Dead letter {letter_id}.")
        inbound.wake()
        return Response(RetryAnswer(letter_id, state))
