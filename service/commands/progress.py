"""One line that says how far a command has come."""

import sys
import time
from types import TracebackType
from typing import Self

SHOW_SECONDS = 0.1


class Progress:
    """Writes over its own line on a terminal; elsewhere it writes one line, at the end."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._line = ""
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._line:
            sys.stderr.write(f"\r{self._line}\n" if sys.stderr.isatty() else f"{self._line}\n")

    def show(self, done: int, total: int) -> None:
        """Say how far it has come."""
        share = 100 * done // total if total else 100
        self._line = f"{self._title}: {done:,} of {total:,} entries ({share} %)"
        if sys.stderr.isatty() and time.monotonic() - self._shown_at > SHOW_SECONDS:
            self._shown_at = time.monotonic()
            sys.stderr.write(f"\r{self._line}")
            sys.stderr.flush()
