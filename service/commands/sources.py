"""`ringfence sources`: who may deliver movements, and their secrets."""

import click

from service.api.identifiers import require_path_safe
from service.commands.connections import open_database, run
from service.commands.tables import print_table, shown_time
from service.warehouses.sources import Rotation, SourceStore

NAME_CHARACTERS_MAX = 64


@click.group()
def sources() -> None:
    """Add sources of signed movements, and change their secrets."""


@sources.command()
@click.argument("name")
def add(name: str) -> None:
    """Add a source and print its secret, this once. It delivers to /v1/webhooks/NAME."""
    require_path_safe("NAME", name)
    if len(name) > NAME_CHARACTERS_MAX:
        raise click.UsageError(f"NAME may have {NAME_CHARACTERS_MAX} characters.")
    secret = run(_add(name))
    if secret is None:
        raise click.ClickException(f"There is a source {name} already; `sources rotate` it.")
    click.echo(f"{name} signs what it sends to /v1/webhooks/{name} with this; keep it:", err=True)
    click.echo(secret)


@sources.command()
@click.argument("name")
def rotate(name: str) -> None:
    """Give a source a new secret and print it, this once. The older one stays valid until `retire`."""
    rotation, secret = run(_rotate(name))
    if rotation is Rotation.UNKNOWN_SOURCE:
        raise click.ClickException(f"There is no source {name}.")
    if rotation is Rotation.TWO_SECRETS_ALREADY:
        raise click.ClickException(
            f"{name} has two secrets already; `sources retire` the older one."
        )
    click.echo(f"{name} may sign with this, and with the one until now; keep it:", err=True)
    click.echo(secret)


@sources.command()
@click.argument("name")
def retire(name: str) -> None:
    """End the older secret of a source."""
    if not run(_retire(name)):
        raise click.ClickException(f"There is no source {name} with an older secret.")
    click.echo(f"{name} has one secret.")


@sources.command("list")
def list_sources() -> None:
    """List every source, without its secrets."""
    run(_list())


async def _add(name: str) -> str | None:
    async with open_database() as pool:
        return await SourceStore(pool).add(name)


async def _rotate(name: str) -> tuple[Rotation, str]:
    async with open_database() as pool:
        return await SourceStore(pool).rotate(name)


async def _retire(name: str) -> bool:
    async with open_database() as pool:
        return await SourceStore(pool).retire(name)


async def _list() -> None:
    async with open_database() as pool:
        rows = await SourceStore(pool).all()
    print_table(
        ("NAME", "ADAPTER", "SECRETS", "CREATED", "ROTATED"),
        [
            (
                row["name"],
                row["adapter"],
                "2" if row["has_older_secret"] else "1",
                shown_time(row["created_at"]),
                shown_time(row["rotated_at"]),
            )
            for row in rows
        ],
    )
