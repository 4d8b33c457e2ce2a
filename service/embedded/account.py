"""The unprivileged account that the servers run under when the process is root."""

import os
import pwd
import stat
from pathlib import Path
from typing import NamedTuple

PREFERRED_NAMES = ("postgres", "nobody")


class Account(NamedTuple):
    """A user and group by number; the names need not exist."""

    user_id: int
    group_id: int

    def reaches(self, path: Path) -> bool:
        """Tell whether this account may read `path` and pass through every folder above it."""
        resolved = path.resolve()
        return all(self._may_pass(folder) for folder in resolved.parents) and self._may_read(
            resolved
        )

    def _may_pass(self, folder: Path) -> bool:
        return self._has(folder.stat(), stat.S_IXUSR, stat.S_IXGRP, stat.S_IXOTH)

    def _may_read(self, path: Path) -> bool:
        return self._has(path.stat(), stat.S_IRUSR, stat.S_IRGRP, stat.S_IROTH)

    def _has(self, found: os.stat_result, user_bit: int, group_bit: int, other_bit: int) -> bool:
        if found.st_uid == self.user_id:
            return bool(found.st_mode & user_bit)
        if found.st_gid == self.group_id:
            return bool(found.st_mode & group_bit)
        return bool(found.st_mode & other_bit)


def unprivileged_account(existing_data: Path) -> Account | None:
    """Choose the servers' account; None means that they run as the caller, who is not root."""
    if os.geteuid() != 0:
        return None
    # A folder that an ordinary user or an earlier start filled stays with its owner.
    if existing_data.is_dir() and existing_data.stat().st_uid != 0:
        found = existing_data.stat()
        return Account(found.st_uid, found.st_gid)
    for name in PREFERRED_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    return Account(65534, 65534)
