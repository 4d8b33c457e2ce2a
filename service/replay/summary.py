"""What a replay prints: what became of every row and cart, how fast, and what the audit found."""

from collections import Counter
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from allocation.audit import Audit
from service.replay.carts import History
from service.replay.opening_stock import RULE
from service.replay.reading import Skip
from service.replay.selling import Sales

FINDINGS_MAX = 20
ODD_CODES_MAX = 12


def rows_balance(history: History, sales: Sales) -> bool:
    """Say whether every row that was read is in exactly one count."""
    return sales.rows.total() + history.skipped.total() == history.rows


def print_rows(console: Console, history: History, sales: Sales) -> None:
    """Print what became of every row, and that the counts add up."""
    table = _table("Rows of the file", "rows")
    for outcome in ("sold", "sold in part", "refused", "returned"):
        _row(table, outcome, sales.rows[outcome])
    for reason in Skip:
        if history.skipped[reason]:
            _row(table, f"skipped: {reason}", history.skipped[reason])
    table.add_section()
    counted = sales.rows.total() + history.skipped.total()
    _row(table, "all of these", counted)
    _row(table, "rows read", history.rows)
    console.print(table)
    if history.odd_codes:
        console.print(f"Codes that are no goods: {_listed(history.odd_codes)}")


def print_sales(console: Console, history: History, sales: Sales, seconds: float) -> None:
    """Print carts, units and speed."""
    table = _table("Sales", "carts", "lines", "units")
    for outcome in ("sold whole", "sold in part", "refused"):
        table.add_row(f"carts {outcome}", f"{sales.carts[outcome]:,}", "", "")
    lines = sum(len(cart.lines) for cart in history.carts if not cart.cancellation)
    table.add_row("units asked for", "", f"{lines:,}", f"{sum(history.skus.values()):,}")
    table.add_row("units sold", "", "", f"{sales.units['sold']:,}")
    for reason, units in sorted(sales.units_refused.items()):
        table.add_row(f"refused: {reason}", "", f"{sales.lines_refused[reason]:,}", f"{units:,}")
    table.add_row("returns", f"{sales.carts['returned']:,}", "", "")
    for kind in ("returned to their order", "returned, order unknown"):
        table.add_row(kind, "", "", f"{sales.units[kind]:,}")
    console.print(table)
    carts = sum(sales.carts.values())
    console.print(
        f"{carts:,} carts in {seconds:.1f} s; {len(sales.reserve_seconds):,} reserve calls, "
        f"as the client saw them: p50 {_percentile_ms(sales, 50):.1f} ms, "
        f"p99 {_percentile_ms(sales, 99):.1f} ms"
    )


def print_rule(console: Console) -> None:
    """Print the rule of the opening stock."""
    console.print(f"Opening stock: {RULE}")


def print_audit(console: Console, audit: Audit) -> None:
    """Print what the audit compared and what it found."""
    oversold = sum(one.units for one in audit.oversold)
    console.print(
        f"Audit: {audit.entries:,} ledger entries recounted, {len(audit.figures):,} SKUs compared: "
        "ledger, gate and HTTP"
    )
    console.print(f"Oversold {oversold:,}")
    findings = [
        *(f"entry {broken.sequence}: {broken.reason}" for broken in audit.breaks),
        *(f"entry {one.sequence} oversold {one.units:,} of {one.sku}" for one in audit.oversold),
        *(
            f"{one.sku}, {one.figure}: {one.counted} by the changes, {one.found} in {one.store}"
            for one in audit.differences
        ),
    ]
    for finding in findings[:FINDINGS_MAX]:
        console.print(f"  {finding}", markup=False)
    if len(findings) > FINDINGS_MAX:
        console.print(f"  and {len(findings) - FINDINGS_MAX:,} more")
    console.print("The audit holds." if audit.holds else "The audit does NOT hold.")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _row(table: Table, name: str, count: int) -> None:
    table.add_row(name, f"{count:,}")


def _listed(codes: Mapping[str, int]) -> str:
    most = Counter(codes).most_common(ODD_CODES_MAX)
    listed = ", ".join(f"{code} {count:,}" for code, count in most)
    return listed + (f" and {len(codes) - len(most)} more" if len(codes) > len(most) else "")


def _percentile_ms(sales: Sales, percent: int) -> float:
    ordered = sorted(sales.reserve_seconds)
    if not ordered:
        return 0.0
    return 1_000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
