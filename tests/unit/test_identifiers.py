"""How old a key says it is, and when it says nothing of the kind."""

import uuid

import pytest

from service.api.identifiers import age_ms_of

JUNE_2024_MS = 1_718_700_000_000
NOW_MS = 1_795_000_000_000
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def ulid(at_ms: int) -> str:
    digits = [CROCKFORD[at_ms >> shift & 31] for shift in range(45, -1, -5)]
    return "".join(digits) + "7" * 16


def uuid7(at_ms: int) -> str:
    return str(uuid.UUID(int=at_ms << 80 | 7 << 76 | 2 << 62))


@pytest.mark.parametrize("written", [ulid, uuid7])
@pytest.mark.parametrize("at_ms", [JUNE_2024_MS, NOW_MS, NOW_MS + 1_000])
def test_key_with_its_time(written: type[str], at_ms: int) -> None:
    """A ULID and a UUIDv7, in either case of its letters, say when they were made."""
    key = written(at_ms)
    assert age_ms_of(key, NOW_MS) == age_ms_of(key.lower(), NOW_MS) == NOW_MS - at_ms


@pytest.mark.parametrize(
    "key",
    [
        f"{12_345:026}",
        "0" * 26,
        "7" * 26,
        "01" + "9" * 24,
        "02" + "0" * 24,
        "20261127" + "0" * 18,
        f"{0:08}-0000-7000-8000-{12_345:012}",
        "12345678-0000-7000-8000-000000000000",
        ulid(0),
        ulid(1_577_000_000_000),
        uuid7(1_577_000_000_000),
        uuid7(NOW_MS + 2 * 86_400_000),
        ulid(NOW_MS)[:-1],
        ulid(NOW_MS) + "7",
        uuid7(NOW_MS).replace("-7", "-4", 1),
        "order-4711",
    ],
)
def test_key_without_a_time(key: str) -> None:
    """A number that fills 26 places, or a time before 2020 or to come, is no time at all."""
    assert age_ms_of(key, NOW_MS) is None
