"""Runs commands of `ringfence`: those that end within the test's process, those that serve as real ones."""

import os
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from service.cli import main

COMMAND = (sys.executable, "-c", "from service.cli import main; main()")
SERVE = (*COMMAND, "serve")
WORK = (*COMMAND, "work")


def ringfence(settings: dict[str, str], *arguments: str | Path) -> Result:
    """Run one command to its end, with no settings but these."""
    unset = dict.fromkeys(name for name in os.environ if name.startswith("RINGFENCE_"))
    return CliRunner().invoke(main, [*map(str, arguments)], env=unset | settings)


def succeeded(result: Result) -> str:
    """Check that a command did what it was asked for, and give what it printed."""
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(result: Result) -> str:
    """Check that a command was stopped by one sentence, and give it."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert result.stderr.startswith("Error: ")
    assert result.stderr.strip().endswith(".")
    return result.stderr.strip()
