"""Free ports on the loopback address."""

import errno
import socket
from collections.abc import Container
from typing import Any

from service.embedded.errors import StartError

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    try:
        _bind(socket.AF_INET, (LOOPBACK, port))
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
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        _bind(family, address)
    except socket.gaierror:
        raise StartError(f"The host {host} (RINGFENCE_HOST) is not a known address.") from None
    except OSError as error:
        raise StartError(_refusal(host, port, error)) from None


def _bind(family: int, address: tuple[Any, ...]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do, so that connections which linger after a restart do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


def _refusal(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} on {host} is taken by another process; "
            f"name a free one with RINGFENCE_PORT."
        )
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights than this user has; name another (RINGFENCE_PORT)."
    return f"Port {port} on {host} cannot be listened on: {error.strerror}."
