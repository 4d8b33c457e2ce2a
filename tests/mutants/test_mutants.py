"""Proof that the checkers of the chaos runs see what only real servers show: each without a safeguard is red."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from chaos.checkers import CHECKERS, verdicts
from chaos.clocks import give_clock
from chaos.replicas import RedisPair
from e2e.running import eventually
from mutants.builds import MUTANTS as BUILDS
from mutants.scenarios import SCENARIOS, UNITS
from mutants.scene import scene
from simulation.mutants import MUTANTS

from service.embedded.postgres_server import PostgresServer
from service.embedded.servers import EmbeddedServers, embedded_servers
from service.settings import Settings

SCENARIO_SECONDS_MAX = 60.0
# The safeguards that must be missed by somebody, here or in the simulation.
SAFEGUARDS = {f"M{number}" for number in range(1, 16)}


class _OperatorsPostgres(PostgresServer):
    """A PostgreSQL whose settings are its operator's to change while it runs, as one that was not embedded."""

    def command(self) -> list[str]:
        return [word for word in super().command() if "synchronous_commit" not in word]


def _give_to_operator(servers: EmbeddedServers) -> None:
    plain = servers.postgres
    assert plain is not None
    plain.stop()
    servers.postgres = _OperatorsPostgres(plain.placement, plain.access, plain.avoided_ports)
    servers.postgres.start()
    eventually(servers.postgres.is_ready)


@pytest.fixture(scope="module")
def own_servers() -> Iterator[EmbeddedServers]:
    """Start servers that nobody else uses: they are killed, and their settings changed."""
    folder = Path(tempfile.mkdtemp(prefix="ringfence-mutants-"))
    # The servers run under another account than root's.
    folder.chmod(0o755)
    with embedded_servers(Settings(data_dir=folder / "servers", demo=False)) as started:
        give_clock(started)
        _give_to_operator(started)
        yield started
    shutil.rmtree(folder)


@pytest.fixture
async def pair(own_servers: EmbeddedServers) -> AsyncIterator[RedisPair]:
    """Give the Redis in use and one that follows it."""
    opened = RedisPair(own_servers)
    await opened.open()
    yield opened
    opened.close()


async def _verdicts(
    build: str, name: str, servers: EmbeddedServers, pair: RedisPair, out: Path
) -> dict[str, list[str]]:
    scenario = SCENARIOS[name]
    async with scene(build, servers, pair, out, UNITS) as opened:
        async with asyncio.timeout(SCENARIO_SECONDS_MAX):
            await scenario.act(opened)
        return verdicts(await opened.end())


@pytest.mark.parametrize("name", SCENARIOS)
async def test_a_missing_safeguard_is_found(
    name: str, own_servers: EmbeddedServers, pair: RedisPair, tmp_path: Path
) -> None:
    """Without the safeguard one of the checkers that it is there for complains."""
    found = await _verdicts(name, name, own_servers, pair, tmp_path)
    red = {checker.split()[0] for checker, complaints in found.items() if complaints}
    assert red & SCENARIOS[name].shows, found


@pytest.mark.parametrize("name", SCENARIOS)
async def test_with_the_safeguard_all_is_well(
    name: str, own_servers: EmbeddedServers, pair: RedisPair, tmp_path: Path
) -> None:
    """The same is done to the service as it is, and no checker complains."""
    found = await _verdicts("none", name, own_servers, pair, tmp_path)
    assert found == {checker: [] for checker in CHECKERS}


def test_no_safeguard_is_without_proof() -> None:
    """Each of the safeguards is taken away somewhere: on real servers, or where time is simulated."""
    assert SAFEGUARDS - MUTANTS.keys() - SCENARIOS.keys() == set()
    assert SCENARIOS.keys() == BUILDS.keys()
