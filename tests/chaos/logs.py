"""What a service has logged, sorted into what an outage explains and what only a bug does."""

import re

_BUG = re.compile(r"never retrieved|never awaited|Bug:|AssertionError|Task was destroyed|Unhandled")
_TRACEBACK = "Traceback (most recent call last):"
# Workers, and the pool of connections, say once that a server is away, and go on.
_SAID_BY = re.compile(r"^The worker [a-z ]+ met a fault and goes on\.$|^Failed to restore the pool")
# What the driver says of a server that is away, of a connection that ends amid an answer, of a statement that was
# cancelled, and of a disk that is full. What it says of a statement that is wrong is not here.
_OUTAGE = re.compile(
    r"^(asyncpg\.exceptions\.(ConnectionDoesNotExist|CannotConnectNow|AdminShutdown|CrashShutdown"
    r"|ConnectionFailure|ClientCannotConnect|QueryCanceled)Error"
    r"|asyncpg\.exceptions\.(DiskFullError|InternalServerError): could not (write|extend)"
    r"|asyncpg\.exceptions\._base\.(InterfaceError|InternalClientError)"
    r"|Connection(Reset|Refused|Aborted|)Error|BrokenPipeError|(asyncio\.exceptions\.)?TimeoutError"
    r"|allocation\.errors\.(LedgerUnavailable|GateUnverified|OutcomeUnknown|TooManyWaiting))"
)
_JOINS = (
    "The above exception was the direct cause",
    "During handling of the above exception",
    "DETAIL: ",
    "HINT: ",
)


def complaints_of(text: str) -> list[str]:
    """Give every line that no outage explains: marks of bugs, and tracebacks that end in something else."""
    wrong: list[str] = []
    said, in_traceback = "", False
    for number, line in enumerate(text.splitlines(), 1):
        if _BUG.search(line):
            wrong.append(f"{number}: {line.strip()}")
        elif line == _TRACEBACK:
            in_traceback = True
        elif in_traceback and line and not line.startswith(" "):
            in_traceback = False
            if not _OUTAGE.match(line) or not _SAID_BY.match(said):
                wrong.append(f"{number}: {line} (said by: {said})")
        elif line and not line.startswith((" ", *_JOINS)) and not _OUTAGE.match(line):
            said = line
    return wrong
