"""`ringfence events`: deliveries that could not be applied, and another try."""

import click

from service.commands.connections import open_database, run
from service.commands.tables import print_table, shown_time
from service.warehouses.inbox import Inbox

WHO = "command line"
PAGE_LETTERS = 500


@click.group()
def events() -> None:
    """Look at dead letters, and let them be tried again."""


@events.command("list")
def list_events() -> None:
    """List the dead letters, the oldest first."""
    run(_list())


@events.command()
@click.argument("ids", nargs=-1, type=click.IntRange(min=0))
@click.option("--all", "everything", is_flag=True, help="Every dead letter.")
def retry(ids: tuple[int, ...], everything: bool) -> None:
    """Let the dead letters with these IDS be tried again, by whatever process works."""
    if bool(ids) == everything:
        raise click.UsageError("Name some IDS, or --all.")
    if everything:
        click.echo(f"{run(_retry_all())} dead letters are tried again.")
        return
    states = run(_retry(ids))
    for event_id, state in states.items():
        click.echo(f"{event_id}  {state or 'unknown'}")
    if None in states.values():
        raise SystemExit(1)


async def _list() -> None:
    async with open_database() as pool:
        inbox, after_id = Inbox(pool), 0
        while rows := await inbox.dead(after_id, PAGE_LETTERS):
            print_table(
                ("ID", "SOURCE", "WEBHOOK ID", "RECEIVED", "ATTEMPTS", "REASON"),
                [
                    (
                        str(row["id"]),
                        row["source"],
                        row["webhook_id"],
                        shown_time(row["received_at"]),
                        str(row["attempts"]),
                        row["reason"],
                    )
                    for row in rows
                ],
            )
            after_id = rows[-1]["id"]


async def _retry(ids: tuple[int, ...]) -> dict[int, str | None]:
    async with open_database() as pool:
        inbox = Inbox(pool)
        return {event_id: await inbox.retry(event_id, WHO) for event_id in ids}


async def _retry_all() -> int:
    async with open_database() as pool:
        return await Inbox(pool).retry_all(WHO)
