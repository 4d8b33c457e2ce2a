"""The program of one service process among several: `python -P -m service.processes.worker DESCRIPTOR...`.

The descriptors are the listening sockets and, as the last, a pipe on which it reports that it is ready. It keeps
the pipe as long as it lives, so that whoever reads there learns of its end.
"""

import os
import socket
import sys
from collections.abc import Sequence

import click

from service.commands.connections import named_addresses, read_settings, run
from service.commands.faults import FAULTS, sentence_of
from service.main import serve_beside_others


def main(descriptors: Sequence[int]) -> None:
    """Serve until SIGTERM; what stops it is one sentence, and exit status 1."""
    *listening, reporting = descriptors
    try:
        settings = read_settings()
        places = named_addresses(settings)
        run(
            serve_beside_others(
                settings,
                redis_url=places.redis_url,
                database_url=places.database_url,
                sockets=[socket.socket(fileno=number) for number in listening],
                on_ready=lambda: _report(reporting),
            )
        )
    except FAULTS as error:
        click.echo(f"Error: {sentence_of(error)}", err=True)
        sys.exit(1)


def _report(descriptor: int) -> None:
    try:
        os.write(descriptor, b"1")
    except BrokenPipeError:
        # The supervisor has gone, and SIGTERM is on its way.
        return


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]])
