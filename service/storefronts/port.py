"""What the service asks of a storefront, whatever it is."""

from typing import Protocol

from msgspec import Struct


class PushedFigure(Struct, frozen=True):
    """What a channel may promise of one SKU, and since when it is so."""

    channel: str
    sku: str
    available: int
    version: int
    changed_at_ms: int


class Delivered(Struct, frozen=True):
    """The storefront has the figure."""


class Retry(Struct, frozen=True):
    """It is not known to have the figure. `after_seconds` is how long it asked to be left alone."""

    reason: str
    after_seconds: float | None = None


class Gone(Struct, frozen=True):
    """It wants nothing more, ever."""

    reason: str


PushResult = Delivered | Retry | Gone


class Storefront(Protocol):
    """A place that shows figures of its own copy.

    An adapter raises nothing: whatever happens on the way is a result. It sends once a call, ends within
    `PUSH_SECONDS_MAX`, and never shows what the storefront answered to anybody.
    """

    async def push(self, figure: PushedFigure) -> PushResult:
        """Tell one figure; telling it again does no harm."""
        ...

    async def close(self) -> None:
        """Give connections back."""
        ...


# Claims last longer than this, so that a figure is on its way once at a time.
PUSH_SECONDS_MAX = 15.0
