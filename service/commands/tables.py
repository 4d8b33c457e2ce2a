"""Tables for people and for `cut`: columns two blanks apart, nothing shortened."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under their titles."""
    lines = [titles, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def shown_time(moment: datetime | None) -> str:
    """Write a time to the second; nothing where there is none."""
    return "-" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
