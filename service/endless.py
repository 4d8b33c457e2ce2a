"""Work that never ends by itself: where it does, the process must end too, and say why."""

import asyncio
from collections.abc import Coroutine


def start_endless(
    work: Coroutine[object, object, None], name: str, broken: asyncio.Future[None]
) -> asyncio.Task[None]:
    """Run it beside everything else; unless it is cancelled, its end is told to `broken`."""
    task = asyncio.create_task(work, name=name)

    def note_end(_task: asyncio.Task[None]) -> None:
        if not task.cancelled() and not broken.done():
            broken.set_exception(
                task.exception() or AssertionError(f"Bug: endless work has ended: {name}.")
            )

    task.add_done_callback(note_end)
    return task
