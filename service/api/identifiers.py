"""What an id may look like, and how old it says it is."""

import re
import uuid

from service.api.problems import Problem

ID_CHARACTERS_MAX = 255
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.IGNORECASE)
_CROCKFORD = {digit: value for value, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_UUID_CHARACTERS = 36
_UUID_VERSION_AT = 14
_ULID_CHARACTERS = 26
_ULID_TIME_CHARACTERS = 10
# A number that fills 26 places reads as a ULID of 1970, or of a year to come; nobody made a key then.
_EARLIEST_MS = 1_577_836_800_000  # 2020
_CLOCK_SKEW_MS_MAX = 86_400_000


def require_clean(field: str, text: str) -> None:
    """Refuse control characters, NUL among them: they would hide in logs and in other systems."""
    if not text.isprintable():
        raise Problem("invalid-request", f"{field} must have printable characters only.")


def require_path_safe(field: str, text: str) -> None:
    """Refuse what could not be named in an address."""
    require_clean(field, text)
    if not text or len(text) > ID_CHARACTERS_MAX or "/" in text:
        raise Problem(
            "invalid-request",
            f"{field} must have 1 to {ID_CHARACTERS_MAX} characters and no slash.",
        )


def age_ms_of(key: str, now_ms: int) -> int | None:
    """Say how old a key is that carries its time, a UUIDv7 or a ULID; None for every other.

    A key whose time cannot be that of its making only looks like one of them.
    """
    time_ms = _time_ms_of(key)
    if time_ms is None or not _EARLIEST_MS <= time_ms <= now_ms + _CLOCK_SKEW_MS_MAX:
        return None
    return now_ms - time_ms


def _time_ms_of(key: str) -> int | None:
    if len(key) == _UUID_CHARACTERS and key[_UUID_VERSION_AT] == "7":
        try:
            return uuid.UUID(key).int >> 80
        except ValueError:
            return None
    if len(key) == _ULID_CHARACTERS and _ULID.fullmatch(key):
        time_ms = 0
        for digit in key[:_ULID_TIME_CHARACTERS].upper():
            time_ms = time_ms * 32 + _CROCKFORD[digit]
        return time_ms
    return None
