"""Every setting of the process, read once from `RINGFENCE_*` environment variables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta

PREFIX = "RINGFENCE_"

# A socket; or a server, or several with commas between them, none of them empty.
RedisUrl = Annotated[
    str, Meta(pattern=r"^(unix://.+|rediss?://(?=.)(.*@)?([^,/?@]+(,[^,/?@]+)*)?([/?].*)?)$")
]
DatabaseUrl = Annotated[str, Meta(pattern=r"^(postgres|postgresql)://.+")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Hours = Annotated[int, Meta(ge=1, le=8784)]
Seconds = Annotated[int, Meta(ge=0, le=86_400)]
Key = Annotated[str, Meta(pattern=r"^[!-~]{1,200}$")]

EXPECTED = {
    "redis_url": "a URL that starts with redis://, rediss:// or unix://, with servers separated by commas",
    "database_url": "a URL that starts with postgres:// or postgresql://",
    "port": "a number between 1 and 65535",
    "key_retention_hours": "a number of hours between 1 and 8784",
    "event_retention_hours": "a number of hours between 1 and 8784",
    "dev_key": "a text of 1 to 200 visible ASCII characters without spaces",
    "demo": "1 or 0",
    "exit_with_parent": "1 or 0",
    "allow_private_storefronts": "1 or 0",
    "verify_seconds": "a number of seconds between 0 and 86400",
}


class SettingsError(Exception):
    """The environment names a setting that does not exist, or gives one a value it cannot have."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings; a field's description is what the documentation prints."""

    redis_url: Annotated[
        RedisUrl | None,
        Meta(
            description="The Redis to use, or several with commas between them; unset: `up` starts"
            " an embedded one."
        ),
    ] = None
    database_url: Annotated[
        DatabaseUrl | None,
        Meta(description="The PostgreSQL to use; unset: `up` starts an embedded one."),
    ] = None
    host: Annotated[str, Meta(description="The address that HTTP is served on.")] = "127.0.0.1"
    port: Annotated[Port, Meta(description="The port that HTTP is served on.")] = 8080
    data_dir: Annotated[
        Path, Meta(description="The folder for embedded servers, their data and `up.json`.")
    ] = Path(".ringfence")
    demo: Annotated[bool, Meta(description="Load the demo catalogue; `0`: leave it out.")] = True
    dev_key: Annotated[
        Key | None,
        Meta(description="An admin key that `up` accepts and prints; unset: one is made up."),
    ] = None
    key_retention_hours: Annotated[
        Hours,
        Meta(description="How long an idempotency key and a closed reservation are remembered."),
    ] = 168
    event_retention_hours: Annotated[
        Hours, Meta(description="How long the id of a stock movement is remembered.")
    ] = 336
    exit_with_parent: Annotated[
        bool, Meta(description="Stop when the process that started `up` ends, however it ends.")
    ] = False

    allow_private_storefronts: Annotated[
        bool,
        Meta(
            description="Push to storefronts at private addresses and without TLS too; for trials."
        ),
    ] = False

    verify_seconds: Annotated[
        Seconds,
        Meta(description="How often `watch` compares Redis with the ledger; `0`: `up` does not."),
    ] = 60

    @property
    def key_retention_ms(self) -> int:
        """How long a closed reservation is remembered."""
        return self.key_retention_hours * 3_600_000

    @property
    def event_retention_ms(self) -> int:
        """How long the id of a movement is remembered."""
        return self.event_retention_hours * 3_600_000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read the settings; an empty value counts as unset, an unknown name stops the start."""
        fields = cls.__struct_fields__
        given: dict[str, str] = {}
        for variable, value in environment.items():
            if not variable.startswith(PREFIX):
                continue
            field = variable.removeprefix(PREFIX).lower()
            if field not in fields or variable != variable_of(field):
                raise SettingsError(f"{variable} is not a setting; there are {_all_variables()}.")
            if value != "":
                given[field] = value
        try:
            return msgspec.convert(given, cls, strict=False, dec_hook=_decode_path)
        except msgspec.ValidationError as error:
            # The decoder ends its sentence with the field's path: ... - at `$.port`
            field = str(error).rpartition("$.")[2].rstrip("`")
            raise SettingsError(f"{variable_of(field)} must be {EXPECTED[field]}.") from None


class SettingRow(NamedTuple):
    """One line of the table of settings."""

    variable: str
    default: str
    description: str


def setting_rows() -> tuple[SettingRow, ...]:
    """List every setting in the order of the fields, for the documentation."""
    hints = get_type_hints(Settings, include_extras=True)
    return tuple(
        SettingRow(
            variable_of(field.name), _printed(field.default), _description(hints[field.name])
        )
        for field in msgspec.structs.fields(Settings)
    )


def variable_of(field: str) -> str:
    """Name the environment variable of a field."""
    return PREFIX + field.upper()


def _decode_path(kind: type, value: object) -> Path:
    if kind is not Path:
        raise NotImplementedError
    return Path(str(value))


def _description(hint: object) -> str:
    for note in get_args(hint)[1:]:
        if isinstance(note, Meta) and note.description is not None:
            return note.description
    raise AssertionError("Bug: a setting has no description.")


def _printed(default: object) -> str:
    if default is None:
        return ""
    return str(int(default)) if isinstance(default, bool) else str(default)


def _all_variables() -> str:
    return ", ".join(variable_of(field) for field in Settings.__struct_fields__)
