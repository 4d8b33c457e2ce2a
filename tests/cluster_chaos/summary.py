"""What a run over several shards amounts to, in a few lines."""

from collections import Counter
from pathlib import Path

from chaos.summary import COMPLAINTS_SHOWN, SUMMARY_NAME, Found
from cluster_chaos.checkers import verdicts
from cluster_chaos.record import Whole, read_whole, shards_of

from allocation.outcomes import Kind, State

_KEPT = {State.HELD, State.COMMITTED, State.SHIPPED, State.RETURNED}


def check(folder: Path) -> Found:
    """Check what a run has written down."""
    whole = read_whole(folder)
    found = verdicts(whole)
    lines = [*amounts(whole), ""]
    for name, complaints in found.items():
        lines.append(f"{'red  ' if complaints else 'green'}  {name}")
        lines += [f"         {complaint}" for complaint in complaints[:COMPLAINTS_SHOWN]]
        if len(complaints) > COMPLAINTS_SHOWN:
            lines.append(f"         and {len(complaints) - COMPLAINTS_SHOWN} more")
    text = "\n".join(lines)
    (folder / SUMMARY_NAME).write_text(text + "\n")
    return Found(not any(found.values()), text)


def amounts(whole: Whole) -> list[str]:
    """Count what was tried: nobody should have to believe a run that tried nothing."""
    final, faults = whole.final, whole.final["faults"]
    said = Counter(attempt.verdict for attempt in whole.attempts)
    total = max(1, said.total())
    slugs = Counter(attempt.slug for attempt in whole.attempts if attempt.verdict == "fail")
    kinds = Counter(fault["kind"] for fault in faults)
    operations = len({attempt.operation.number for attempt in whole.attempts})
    rows = [len(record.rows) for record in whole.shards]
    sold = [seconds for seconds in final["sold_again_seconds"] if seconds is not None]
    return [
        f"attempts            {total:,} at {operations:,} operations in {final['seconds']:.0f} s: "
        + ", ".join(
            f"{said[each]:,} {each} ({said[each] / total:.0%})" for each in ("ok", "fail", "info")
        ),
        "refused             " + ", ".join(f"{slug} {n:,}" for slug, n in slugs.most_common()),
        *_carts(whole),
        f"ledgers             {sum(rows):,} rows on {len(rows)} shards",
        f"take-overs          {sum(head['epoch'] - 1 for head in final['heads'])} after the first of each shard",
        f"faults              {len(faults)}: "
        + ", ".join(f"{kind} {many}" for kind, many in sorted(kinds.items())),
        f"fail-overs          {kinds['master-kill'] + kinds['master-pause']}",
        f"slot moves          {2 * (kinds['slot-move'] + kinds['node-added'])}",
        f"sold again          within {max(sold, default=0):.2f} s of healing, on {len(sold)} shards",
        f"ready, settled      {final['ready_seconds']} s, {final['settled_seconds']} s",
    ]


def _carts(whole: Whole) -> list[str]:
    asked = {
        attempt.operation.key: attempt.operation.body
        for attempt in whole.attempts
        if attempt.operation.kind in {"reserve", "order"}
    }
    wide = [key for key, body in asked.items() if len(shards_of(body)) > 1]
    refused = [key for key in wide if whole.took(key, Kind.REFUSED)]
    taken = [key for key in wide if whole.took(key, Kind.HELD, Kind.ORDERED)]
    given_back = [key for key in refused if whole.took(key, Kind.HELD)]
    committed = [key for key in wide if whole.took(key, Kind.COMMITTED, Kind.ORDERED)]
    share = len(refused) / max(1, len(wide))
    return [
        f"carts               {len(asked):,}, {len(wide):,} of them over several shards",
        f"                    of these {len(taken):,} held, {len(committed):,} committed,",
        f"                    {len(refused):,} ({share:.0%}) refused, {len(given_back):,} after a hold elsewhere",
    ]
