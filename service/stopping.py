"""The wish to stop, as a process hears it."""

import asyncio
import signal


def stop_wanted() -> asyncio.Event:
    """Give an event that SIGINT and SIGTERM set from now on, instead of what they did before."""
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping
