"""Ports and passwords of the embedded servers, kept so that a second start has the same ones."""

import secrets
from pathlib import Path

import msgspec

from service.embedded.errors import StartError
from service.embedded.files import write_whole

FILE_NAME = "servers.json"


class Access(msgspec.Struct):
    """How one server is reached."""

    port: int
    password: str


class Credentials(msgspec.Struct):
    """How both servers are reached."""

    redis: Access
    postgres: Access


def load_credentials(data_dir: Path) -> Credentials:
    """Read what an earlier start kept, or make up passwords; port 0 means none was chosen yet."""
    path = data_dir / FILE_NAME
    if not path.exists():
        return Credentials(Access(0, _password()), Access(0, _password()))
    try:
        return msgspec.json.decode(path.read_bytes(), type=Credentials)
    except msgspec.MsgspecError:
        raise StartError(f"The file {path} is damaged; restore it from a backup.") from None


def keep_credentials(data_dir: Path, credentials: Credentials) -> None:
    """Write the file that only the owner of the data folder may read."""
    text = msgspec.json.format(msgspec.json.encode(credentials)).decode() + "\n"
    write_whole(data_dir / FILE_NAME, text, mode=0o600)


def _password() -> str:
    return secrets.token_urlsafe(24)
