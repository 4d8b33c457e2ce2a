"""What the service needs of a warehouse system: proof of who sent a delivery, and the movements in it."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from service.api.schemas import MovementRequest


class Verified(Struct, frozen=True):
    """A delivery that its source has signed; `delivery_id` is the same whenever it is sent again."""

    delivery_id: str


class Unverified(Struct, frozen=True):
    """A delivery that nobody is known to have sent."""

    reason: str


class Translated(Struct, frozen=True):
    """The movements of a delivery, in the order in which they are to be applied."""

    movements: tuple[MovementRequest, ...]


class Untranslatable(Struct, frozen=True):
    """A delivery that is signed, and says nothing that can be applied."""

    reason: str


class Warehouse(Protocol):
    """The dialect of one kind of warehouse system. An adapter holds no state and calls nobody."""

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str]
    ) -> Verified | Unverified:
        """Check the signature over the raw body with every secret; names of headers are in lower case.

        The same answer and about the same work for every wrong signature, whatever is wrong with it.
        """
        ...

    def translate(self, source: str, delivery_id: str, body: bytes) -> Translated | Untranslatable:
        """Read the movements. The same delivery gives the same movements, event ids included."""
        ...
