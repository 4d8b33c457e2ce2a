"""The command line: `ringfence COMMAND`."""

import click

from service.commands.bench import bench
from service.commands.checkpoint import checkpoint
from service.commands.events import events
from service.commands.faults import FAULTS, sentence_of
from service.commands.init import init
from service.commands.keys import keys
from service.commands.load import load
from service.commands.migrate import migrate
from service.commands.rebuild import rebuild
from service.commands.reopen import reopen
from service.commands.replay import replay
from service.commands.serve import serve
from service.commands.sources import sources
from service.commands.up import up
from service.commands.verify import verify
from service.commands.watch import watch_command
from service.commands.work import work


class Commands(click.Group):
    """Prints what stopped a command as one sentence."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except FAULTS as error:
            raise click.ClickException(sentence_of(error)) from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        # In the order in which they are met, not in that of the alphabet.
        del ctx
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ringfence")
def main() -> None:
    """Hold the number that every storefront may sell."""


for command in (
    up,
    serve,
    work,
    watch_command,
    init,
    migrate,
    load,
    keys,
    sources,
    events,
    verify,
    rebuild,
    checkpoint,
    reopen,
    replay,
    bench,
):
    main.add_command(command)
