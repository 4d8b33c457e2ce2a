"""What every warehouse adapter must do, whatever its dialect."""

import pytest
from conformance.warehouses.dialects import DIALECTS, Dialect
from hypothesis import given
from hypothesis import strategies as st

from service.api.schemas import QUANTITY_MAX
from service.warehouses.adapters import ADAPTERS
from service.warehouses.port import Translated, Untranslatable, Unverified, Verified

SOURCE = "wms"
every_dialect = pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)


def test_every_adapter_is_here() -> None:
    """No adapter escapes this suite."""
    assert {dialect.name for dialect in DIALECTS} == set(ADAPTERS)


@every_dialect
def test_genuine(dialect: Dialect) -> None:
    """A delivery that is signed with a secret of the source is verified, each time with one id."""
    older, secret = dialect.secret(), dialect.secret()
    body = dialect.receipt({"TEE": 2})
    headers = dialect.headers(secret, "delivery-1", body)
    verdicts = [dialect.adapter.verify(headers, body, (older, secret)) for _ in range(2)]
    assert verdicts == [Verified("delivery-1")] * 2
    assert dialect.adapter.verify(headers, body, (secret,)) == verdicts[0]


@every_dialect
def test_wrong_secret(dialect: Dialect) -> None:
    """Without the right secret, or without any, nothing is verified."""
    body = dialect.receipt({"TEE": 2})
    headers = dialect.headers(dialect.secret(), "delivery-1", body)
    for secrets in ((), (dialect.secret(),), (dialect.secret(), dialect.secret())):
        assert isinstance(dialect.adapter.verify(headers, body, secrets), Unverified)


@every_dialect
def test_changed_body(dialect: Dialect) -> None:
    """A body in which any one bit is flipped is not verified."""
    secret, body = dialect.secret(), dialect.receipt({"TEE": 2})
    headers = dialect.headers(secret, "delivery-1", body)
    for place in range(len(body)):
        for bit in range(8):
            changed = bytearray(body)
            changed[place] ^= 1 << bit
            assert isinstance(
                dialect.adapter.verify(headers, bytes(changed), (secret,)), Unverified
            )


@every_dialect
@pytest.mark.parametrize("text", ["", " ", "0", "x" * 10_240, "é", "v1,", ",", "v1,a v1,b", "-"])
def test_spoiled_header(dialect: Dialect, text: str) -> None:
    """A header that is missing or says something else is not verified, and breaks nothing."""
    secret, body = dialect.secret(), dialect.receipt({"TEE": 2})
    headers = dialect.headers(secret, "delivery-1", body)
    for name in headers:
        missing = {other: value for other, value in headers.items() if other != name}
        for spoiled in (missing, headers | {name: text}):
            assert isinstance(dialect.adapter.verify(spoiled, body, (secret,)), Unverified)


@every_dialect
def test_translation(dialect: Dialect) -> None:
    """The same delivery always gives the same movements, under the name of its source."""
    body = dialect.receipt({"TEE": 2, "MUG": 3})
    translation = dialect.adapter.translate(SOURCE, "delivery-1", body)
    assert isinstance(translation, Translated)
    assert translation == dialect.adapter.translate(SOURCE, "delivery-1", body)
    assert {movement.source for movement in translation.movements} == {SOURCE}
    event_ids = [movement.event_id for movement in translation.movements]
    assert len(set(event_ids)) == len(event_ids)
    moved = [
        (movement.kind, line.sku, line.location, line.quantity)
        for movement in translation.movements
        for line in movement.lines
    ]
    assert moved == [("receipt", "TEE", "LONDON", 2), ("receipt", "MUG", "LONDON", 3)]


@every_dialect
def test_two_deliveries(dialect: Dialect) -> None:
    """Two deliveries that say the same are two events."""
    body = dialect.receipt({"TEE": 2})
    event_ids = set[str]()
    for delivery_id in ("delivery-1", "delivery-2"):
        translation = dialect.adapter.translate(SOURCE, delivery_id, body)
        assert isinstance(translation, Translated)
        event_ids |= {movement.event_id for movement in translation.movements}
    assert len(event_ids) == 2


@every_dialect
@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"null", b"0", b"\xff\xfe", b'{"a":', b"[" * 100_000, b'{"a":' * 100_000],
    ids=["empty", "object", "array", "null", "number", "binary", "cut", "deep", "deeper"],
)
def test_nonsense(dialect: Dialect, body: bytes) -> None:
    """A body that says nothing is refused with a reason, and breaks nothing."""
    translation = dialect.adapter.translate(SOURCE, "delivery-1", body)
    assert isinstance(translation, Untranslatable)
    assert translation.reason


@every_dialect
@pytest.mark.parametrize("quantity", [QUANTITY_MAX + 1, -(10**12), 10**400])
def test_absurd_quantity(dialect: Dialect, quantity: int) -> None:
    """A quantity that no movement can have is refused."""
    body = dialect.receipt({"TEE": quantity})
    assert isinstance(dialect.adapter.translate(SOURCE, "delivery-1", body), Untranslatable)


@every_dialect
@given(st.binary(max_size=200))
def test_any_bytes(dialect: Dialect, body: bytes) -> None:
    """Whatever the bytes, there is an answer."""
    translation = dialect.adapter.translate(SOURCE, "delivery-1", body)
    assert isinstance(translation, Translated | Untranslatable)
