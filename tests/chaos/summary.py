"""What a run amounts to, in a few lines: nobody should have to believe a run that tried nothing."""

from collections import Counter
from pathlib import Path

from chaos.checkers import counts, first_success_seconds, verdicts
from chaos.record import Record, read_record
from msgspec import Struct

COMPLAINTS_SHOWN = 5


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
    return Found(not any(found.values()), "\n".join(lines))


def _amounts(record: Record) -> list[str]:
    said, faults = counts(record), record.final["faults"]
    slugs = Counter(attempt.slug for attempt in record.attempts if attempt.verdict == "fail")
    overlapping = sum(fault["commits_in_flight"] > 0 for fault in faults)
    total = max(1, sum(said.values()))
    ended = {
        name: len(known) for name, known in record.final["ended_by_themselves"].items() if known
    }
    waited, final = first_success_seconds(record), record.final
    return [
        f"attempts            {total}: {said['ok']} ok, {said['fail']} fail, {said['info']} info",
        f"refused             {slugs['insufficient-stock'] / total:.0%} for want of stock; "
        + ", ".join(f"{slug} {count}" for slug, count in slugs.most_common()),
        f"ledger              {len(record.rows)} rows, {final['head']['epoch'] - 1} take-overs after the first",
        f"faults              {len(faults)}, {overlapping} of them while a commit was in flight",
        "                    "
        + ", ".join(
            f"{kind} {count}" for kind, count in sorted(Counter(f["kind"] for f in faults).items())
        ),
        f"services that ended {ended or 'none'} by themselves",
        f"first success       {'none' if waited is None else f'{waited:.2f} s'} after the last fault",
        f"ready again         {_seconds(final['ready_seconds'])} after healing",
        f"figures agree       {_seconds(final['agreed_seconds'])} after being asked",
    ]


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"
