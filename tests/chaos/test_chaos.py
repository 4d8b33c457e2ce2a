"""A few seeds of the chaos runs, each with every kind of fault, on servers of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from chaos.history import FILE_NAME, read_history
from chaos.plan import KINDS
from chaos.summary import check

SEEDS = (1, 2)
# Together at least a hundred thousand attempts, and twenty faults that strike amid a commit.
OPERATIONS, FAULTS = 51_000, 2 * len(KINDS)
ATTEMPTS_MIN, OVERLAPPING_MIN = 100_000, 20
REFUSED_SHARE, FAILED_SHARE_MAX = (0.1, 0.4), 0.6
# Limits of time are for a machine of one's own; here only endless waiting is a failure.
ROOM = 6.0
ROOT = Path(__file__).parents[2]


def run_chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chaos", *arguments],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        capture_output=True,
        check=False,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Run a seed, once."""

    @cache
    def run(seed: int) -> Path:
        out = tmp_path_factory.mktemp("chaos") / str(seed)
        amounts = f"--operations={OPERATIONS}", f"--faults={FAULTS}", f"--room={ROOM}"
        done = run_chaos("run", f"--seed={seed}", *amounts, f"--out={out}")
        assert done.returncode == 0, done.stdout + done.stderr
        return out

    return run


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost_or_oversold_whatever_breaks(
    runs: Callable[[int], Path], seed: int
) -> None:
    """Under every kind of fault all checkers pass, and the run was worth it."""
    _expect_worth(json.loads((runs(seed) / "final.json").read_text()))


@pytest.mark.timeout(900)
def test_the_runs_were_worth_it_together(runs: Callable[[int], Path]) -> None:
    """They make an amount of attempts of which a fair share is refused, and many faults strike amid a commit."""
    attempts = [it for seed in SEEDS for it in read_history(runs(seed) / FILE_NAME)]
    finals = [json.loads((runs(seed) / "final.json").read_text()) for seed in SEEDS]
    assert len(attempts) >= ATTEMPTS_MIN
    overlapping = [f for final in finals for f in final["faults"] if f["commits_in_flight"]]
    assert len(overlapping) >= OVERLAPPING_MIN
    refused = sum(attempt.slug == "insufficient-stock" for attempt in attempts) / len(attempts)
    assert REFUSED_SHARE[0] <= refused <= REFUSED_SHARE[1]
    assert sum(it.verdict == "fail" for it in attempts) <= FAILED_SHARE_MAX * len(attempts)


@pytest.mark.timeout(900)
def test_what_is_written_down_can_be_checked_again(
    runs: Callable[[int], Path], tmp_path: Path
) -> None:
    """A second look needs no server; its exit status tells when something is wrong, as a lost row is."""
    out = shutil.copytree(runs(SEEDS[0]), tmp_path / "copy")
    assert check(out).holds
    ledger = out / "ledger.jsonl"
    ledger.write_text("".join(ledger.read_text().splitlines(keepends=True)[:-1]))
    assert run_chaos("check", str(out)).returncode == 1


def _expect_worth(final: dict[str, Any]) -> None:
    """Check that the run has tried what it was for."""
    assert {fault["kind"] for fault in final["faults"]} == set(KINDS)
    assert any(fault["commits_in_flight"] for fault in final["faults"])
    # The gate was lost more than once, and taken over each time.
    assert final["head"]["epoch"] > 2
    assert final["head"]["last_sequence"] > OPERATIONS / 4
