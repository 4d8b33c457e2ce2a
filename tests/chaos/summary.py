"""What a run amounts to, in a few lines: nobody should have to believe a run that tried nothing."""

from collections import Counter
from pathlib import Path

from chaos.checkers import counts, first_success_seconds, verdicts
from chaos.linear import samples
from chaos.record import Record, read_record
from msgspec import Struct

COMPLAINTS_SHOWN = 5
SUMMARY_NAME = "summary.txt"


class Found(Struct, frozen=True):
    """The outcome of a check."""

    holds: bool
    text: str


def check(folder: Path) -> Found:
    """Check what a run has written down."""
    record = read_record(folder)
    found = verdicts(record)
    lines = [*_amounts(record), ""]
    for name, complaints in found.items():
        lines.append(f"{'red  ' if complaints else 'green'}  {name}")
        lines += [f"         {complaint}" for complaint in complaints[:COMPLAINTS_SHOWN]]
        if len(complaints) > COMPLAINTS_SHOWN:
            lines.append(f"         and {len(complaints) - COMPLAINTS_SHOWN} more")
    text = "\n".join(lines)
    (folder / SUMMARY_NAME).write_text(text + "\n")
    return Found(not any(found.values()), text)


def _amounts(record: Record) -> list[str]:
    final, faults = record.final, record.final["faults"]
    said = counts(record)
    total = max(1, sum(said.values()))
    operations = len({attempt.operation.number for attempt in record.attempts})
    slugs = Counter(attempt.slug for attempt in record.attempts if attempt.verdict == "fail")
    kinds = Counter(fault["kind"] for fault in faults)
    overlapping = Counter(fault["kind"] for fault in faults if fault["commits_in_flight"])
    seconds = final.get("seconds", record.attempts[-1].completed_seconds)
    ended = {name: len(known) for name, known in final["ended_by_themselves"].items() if known}
    waited, sampled = first_success_seconds(record), samples(record.attempts)
    shares = ", ".join(
        f"{said[verdict]:,} {verdict} ({said[verdict] / total:.0%})"
        for verdict in ("ok", "fail", "info")
    )
    return [
        f"attempts            {total:,} at {operations:,} operations: {shares}",
        f"seconds             {seconds:.0f}",
        f"refused             {slugs['insufficient-stock'] / total:.0%} for want of stock; "
        + ", ".join(f"{slug} {count:,}" for slug, count in slugs.most_common()),
        f"ledger              {len(record.rows):,} rows",
        f"take-overs          {final['head']['epoch'] - 1} after the first",
        f"faults              {len(faults)} ({overlapping.total()} of them while a commit was in flight)",
        "                    "
        + ", ".join(f"{kind} {kinds[kind]} ({overlapping[kind]})" for kind in sorted(kinds)),
        f"samples             {len(sampled)}, {sum(map(len, sampled.values())):,} attempts",
        f"services that ended {ended or 'none'} by themselves",
        f"first success       {_seconds(waited)} after the last fault",
        f"ready again         {_seconds(final['ready_seconds'])} after healing",
        f"figures agree       {_seconds(final['agreed_seconds'])} after being asked",
    ]


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
