"""Free ports on the loopback address."""

import errno
import socket
from collections.abc import Container
from contextlib import ExitStack
from typing import Any

from service.embedded.errors import StartError

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    try:
        _listen(socket.AF_INET, (LOOPBACK, port), 1).close()
    except OSError:
        return False
    return True


def free_port(avoid: Container[int]) -> int:
    """Find a loopback port that nothing listens on and that is not in `avoid`."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port not in avoid:
            return port


def require_free(host: str, port: int) -> None:
    """Stop the start, with a sentence, where HTTP cannot be served on this address."""
    for listening in listening_sockets(host, port, 1):
        listening.close()


def listening_sockets(host: str, port: int, backlog: int) -> list[socket.socket]:
    """Listen on every address of a host. Raises StartError where one cannot be listened on."""
    with ExitStack() as opened:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            sockets = [
                opened.enter_context(_listen(family, address, backlog))
                for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found)
            ]
        except socket.gaierror:
            raise StartError(f"The host {host} (RINGFENCE_HOST) is not a known address.") from None
        except OSError as error:
            raise StartError(_refusal(host, port, error)) from None
        opened.pop_all()
    return sockets


def _listen(family: int, address: tuple[Any, ...], backlog: int) -> socket.socket:
    with ExitStack() as opened:
        listening = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
        # As servers do, so that connections which linger after a restart do not count.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(address)
        listening.listen(backlog)
        opened.pop_all()
    return listening


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken by another process; "
            f"name a free one with RINGFENCE_PORT."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights than this user has; name another (RINGFENCE_PORT)."
    return f"Port {port} on {host} cannot be listened on: {error.strerror}."
