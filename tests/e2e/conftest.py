"""Data folders for end-to-end tests, which other accounts than the caller's can reach."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.running import Up


def _open_folder() -> Path:
    # Not tmp_path: its parents are closed to the account that the servers run under.
    folder = Path(tempfile.mkdtemp(prefix="ringfence-test-"))
    folder.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    """Give a data folder as an earlier start left it; tests share it, since making one is slow."""
    folder = _open_folder()
    with Up(folder / "data") as up:
        up.await_ready()
        assert up.stop() == 0
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
def copied_dir(data_dir: Path, empty_dir: Path) -> Path:
    """Give a copy of the shared data folder, with the same remembered ports."""
    subprocess.run(["/bin/cp", "-a", data_dir, empty_dir], check=True)
    return empty_dir


@pytest.fixture
def empty_dir() -> Iterator[Path]:
    """Give a place for a data folder that does not exist yet."""
    folder = _open_folder()
    yield folder / "data"
    shutil.rmtree(folder)
