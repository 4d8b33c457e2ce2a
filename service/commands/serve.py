"""`ringfence serve`: one process that answers HTTP, on servers that are there already."""

import click

from service.commands.connections import named_addresses, read_settings, run
from service.embedded.ports import require_free
from service.main import serve as answer


@click.command()
def serve() -> None:
    """Serve on the Redis and PostgreSQL that the settings name; keys come from `ringfence keys`."""
    settings = read_settings()
    places = named_addresses(settings)
    require_free(settings.host, settings.port)
    run(
        answer(
            settings,
            redis_url=places.redis_url,
            database_url=places.database_url,
            development_key=None,
            demo=False,
        )
    )
