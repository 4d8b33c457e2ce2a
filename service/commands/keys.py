"""`ringfence keys`: makes, lists and revokes API keys."""

import click

from service.commands.connections import open_database, run
from service.commands.tables import print_table, shown_time
from service.keys import SCOPES, KeyStore, NewKey


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(SCOPES),
    help="What the key may do; give it once for each right.",
)
@click.option(
    "--channel",
    "channels",
    multiple=True,
    help="A channel that the key may act for; give it once for each.",
)
@click.option(
    "--all-channels",
    is_flag=True,
    help="Let the key act for every channel, as one without the scope reserve does by itself.",
)
def create(
    name: str, scopes: tuple[str, ...], channels: tuple[str, ...], *, all_channels: bool
) -> None:
    """Make a key and print it, this once. NAME says whose it is."""
    if all_channels and channels:
        raise click.UsageError("Give --channel or --all-channels, not both.")
    if "reserve" in scopes and not channels and not all_channels:
        raise click.UsageError(
            "A key with the scope reserve sells: name each --channel that it sells on, "
            "or say --all-channels."
        )
    key = run(_create(name, scopes, channels))
    click.echo(f"Key {key.key_id} for {', '.join(channels) or 'every channel'}; keep it:", err=True)
    click.echo(key.text)


@keys.command("list")
def list_keys() -> None:
    """List every key, without its secret."""
    run(_list())


@keys.command()
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """End a key. Every process refuses it within seconds."""
    if not run(_revoke(key_id)):
        raise click.ClickException(f"There is no live key {key_id}.")
    click.echo(f"Key {key_id} is revoked.")


async def _create(name: str, scopes: tuple[str, ...], channels: tuple[str, ...]) -> NewKey:
    async with open_database() as pool:
        return await KeyStore(pool).add(name, scopes, channels)


async def _revoke(key_id: str) -> bool:
    async with open_database() as pool:
        return await KeyStore(pool).revoke(key_id)


async def _list() -> None:
    async with open_database() as pool:
        rows = await KeyStore(pool).all()
    print_table(
        ("ID", "NAME", "SCOPES", "CHANNELS", "CREATED", "REVOKED"),
        [
            (
                row["key_id"],
                row["name"],
                ",".join(row["scopes"]),
                ",".join(row["channels"]) or "all",
                shown_time(row["created_at"]),
                shown_time(row["revoked_at"]),
            )
            for row in rows
        ],
    )
