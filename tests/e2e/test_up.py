"""`ringfence up` as a person meets it: real processes, real signals."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.running import (
    COMMAND,
    Up,
    answers,
    ask_postgres,
    eventual_answer,
    eventually,
    free_port,
    listens,
    processes_in,
    redis_client,
    servers_access,
)

from service.embedded.credentials import load_credentials
from service.embedded.placement import place
from service.embedded.redis_server import RedisServer

ROOT = Path(__file__).parents[2]
NOBODY = 65534
NOBODY_ENVIRONMENT = {"HOME": "/nonexistent", "USER": "nobody"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")


def refusal(up: Up) -> str:
    """Wait for the end and give the one sentence on stderr."""
    status, errors = up.finish()
    assert status == 1
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1, errors
    return errors.strip()


def test_first_start(empty_dir: Path) -> None:
    """A start on an empty folder answers HTTP and lists its live processes, without passwords."""
    with Up(empty_dir) as up:
        described = up.await_ready().described()
        assert described["pid"] == up.process.pid
        assert described["address"] == f"http://127.0.0.1:{up.port}"
        running = processes_in(empty_dir)
        assert {described["redis"]["pid"], described["postgres"]["pid"]} <= set(running)
        access = servers_access(empty_dir)
        assert access["redis"]["password"] not in json.dumps(described)
        assert access["postgres"]["password"] not in json.dumps(described)


async def test_second_start_keeps_data(data_dir: Path) -> None:
    """What one start wrote, the next one finds, and the addresses stay."""
    with Up(data_dir) as up:
        before = up.await_ready().described()
        redis_client(data_dir).set("unit", "kept")
        await ask_postgres(data_dir, "CREATE TABLE kept_by_stop AS SELECT 7 AS units")
        up.stop()
    with Up(data_dir) as up:
        after = up.await_ready().described()
        assert redis_client(data_dir).get("unit") == "kept"
        assert await ask_postgres(data_dir, "SELECT units FROM kept_by_stop") == 7
        for name in ("redis", "postgres"):
            assert after[name]["address"] == before[name]["address"]


async def test_durable_settings(data_dir: Path) -> None:
    """The embedded servers run with the settings that durability and safety need."""
    with Up(data_dir) as up:
        up.await_ready()
        client = redis_client(data_dir)
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert "graph" not in {module["name"] for module in client.module_list()}
        for name in ("fsync", "full_page_writes", "synchronous_commit", "data_checksums"):
            assert await ask_postgres(data_dir, f"SHOW {name}") == "on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stop_signals(data_dir: Path, number: signal.Signals) -> None:
    """A signal to stop ends every process and removes up.json."""
    with Up(data_dir) as up:
        up.await_ready()
        assert up.stop(number) == 0
        assert processes_in(data_dir) == []
        assert not (data_dir / "up.json").exists()


def test_stop_during_start(data_dir: Path) -> None:
    """A signal that arrives while the servers start leaves no process behind."""
    with Up(data_dir) as up:
        eventually(lambda: processes_in(data_dir) != [])
        up.stop()
        assert processes_in(data_dir) == []


async def test_killed(data_dir: Path) -> None:
    """After kill -9 no process remains, nothing acknowledged is lost, and a start works."""
    with Up(data_dir) as up:
        up.await_ready()
        await ask_postgres(data_dir, "CREATE TABLE kept_by_kill AS SELECT 7 AS units")
        up.process.kill()
        up.finish()
        with Up(data_dir) as second:
            second.await_ready()
            assert await ask_postgres(data_dir, "SELECT units FROM kept_by_kill") == 7
            second.process.kill()
            second.finish()
    eventually(lambda: processes_in(data_dir) == [])


def test_parent_killed(data_dir: Path) -> None:
    """With RINGFENCE_EXIT_WITH_PARENT it stops when the shell that started it is killed."""
    shell = ("/bin/sh", "-c", '"$@"; exit', "sh", *COMMAND)
    with Up(data_dir, command=shell, environment={"RINGFENCE_EXIT_WITH_PARENT": "1"}) as up:
        started = up.await_ready().described()["pid"]
        assert started != up.process.pid
        up.process.kill()
        eventually(lambda: not Path(f"/proc/{started}").exists())
        assert processes_in(data_dir) == []


async def test_servers_killed(data_dir: Path) -> None:
    """A server that is killed is started again at its address, with its data."""
    with Up(data_dir) as up:
        before = up.await_ready().described()
        await ask_postgres(data_dir, "CREATE TABLE kept_by_restart AS SELECT 7 AS units")
        for name in ("redis", "postgres"):
            os.kill(before[name]["pid"], signal.SIGKILL)
        for name in ("redis", "postgres"):
            eventually(lambda name=name: up.described()[name]["pid"] != before[name]["pid"])
            assert up.described()[name]["address"] == before[name]["address"]
            eventually(lambda name=name: listens(before[name]["address"]))
        assert await eventual_answer(data_dir, "SELECT units FROM kept_by_restart") == 7


def test_two_copies(data_dir: Path, copied_dir: Path) -> None:
    """Two data folders that remember the same ports run side by side."""
    with Up(data_dir) as first, Up(copied_dir) as second:
        one, two = first.await_ready().described(), second.await_ready().described()
        for name in ("redis", "postgres"):
            assert one[name]["address"] != two[name]["address"]
            assert one[name]["pid"] != two[name]["pid"]


def test_port_lost_to_a_copy(data_dir: Path, copied_dir: Path) -> None:
    """A Redis that loses its port between probe and start is never mistaken for the one there."""
    with Up(data_dir) as first:
        taken = first.await_ready().described()["redis"]["address"]
        access = load_credentials(copied_dir).redis
        second = RedisServer(place(copied_dir), access, avoided_ports=())
        second.revive()
        try:
            assert second.address == taken
            eventually(second.is_ready)
            assert second.address != taken
        finally:
            second.stop()


def test_same_folder_twice(data_dir: Path) -> None:
    """A second start on a folder in use is refused and leaves the first one alone."""
    with Up(data_dir) as first:
        first.await_ready()
        with Up(data_dir) as second:
            assert "already runs on the data folder" in refusal(second)
        assert answers(first.port)
        assert first.described()["pid"] == first.process.pid


def test_taken_port(data_dir: Path) -> None:
    """A taken HTTP port is one sentence, and no server is started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = str(other.getsockname()[1])
        with Up(data_dir, environment={"RINGFENCE_PORT": taken}) as up:
            assert f"Port {taken} on 127.0.0.1 is taken" in refusal(up)
    assert processes_in(data_dir) == []


def test_invalid_setting(empty_dir: Path) -> None:
    """A setting that does not exist stops the start before anything is made."""
    with Up(empty_dir, environment={"RINGFENCE_PROT": "1"}) as up:
        assert "RINGFENCE_PROT is not a setting" in refusal(up)
    assert not empty_dir.exists()


def file_for_folder(data_dir: Path) -> None:
    data_dir.write_text("")


def file_for_postgres(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "postgres").write_text("")


def garbage_in_postgres(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "holiday.jpg").write_bytes(b"\x00\xff")


def older_postgres(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("15\n")


def half_a_postgres(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("18\n")


def damaged_manifest(data_dir: Path) -> None:
    folder = data_dir / "redis" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text("garbage\n")


def damaged_credentials(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "servers.json").write_text("{")


@pytest.mark.parametrize(
    ("breakage", "sentence"),
    [
        (file_for_folder, "cannot be used"),
        (file_for_postgres, "cannot be used"),
        (garbage_in_postgres, "is not a PostgreSQL data folder"),
        (older_postgres, "was made by PostgreSQL 15"),
        (half_a_postgres, "The embedded PostgreSQL did not start"),
        (damaged_manifest, "The embedded Redis did not start"),
        (damaged_credentials, "is damaged"),
    ],
)
def test_broken_folder(empty_dir: Path, breakage: Callable[[Path], None], sentence: str) -> None:
    """A data folder that cannot be used is one sentence, and no process remains."""
    breakage(empty_dir)
    with Up(empty_dir) as up:
        assert sentence in refusal(up)
    assert processes_in(empty_dir) == []


def test_stale_process_file(data_dir: Path) -> None:
    """A process file whose number now belongs to another process does not prevent the start."""
    owner = (data_dir / "postgres").stat()
    other = subprocess.Popen(
        ["/bin/sleep", "60"],
        user=owner.st_uid if os.geteuid() == 0 else None,
        extra_groups=[] if os.geteuid() == 0 else None,
    )
    try:
        stale = data_dir / "postgres" / "postmaster.pid"
        stale.write_text(f"{other.pid}\n{data_dir}/postgres\n1\n{free_port()}\n\n127.0.0.1\n")
        os.chown(stale, owner.st_uid, owner.st_gid)
        with Up(data_dir) as up:
            up.await_ready()
    finally:
        other.kill()
        other.wait()


@as_root
def test_ordinary_user(empty_dir: Path) -> None:
    """An ordinary user without a home starts and stops it, and the servers run as that user."""
    empty_dir.mkdir()
    os.chown(empty_dir, NOBODY, NOBODY)
    with Up(empty_dir, command=as_nobody(), environment=NOBODY_ENVIRONMENT) as up:
        described = up.await_ready().described()
        for process_id in (described["pid"], *processes_in(empty_dir)):
            assert Path(f"/proc/{process_id}").stat().st_uid == NOBODY
        assert up.stop() == 0
    assert processes_in(empty_dir) == []


@as_root
def test_unwritable_folder(empty_dir: Path) -> None:
    """A folder that this user may not write in is one sentence."""
    command = as_nobody()
    with Up(empty_dir / "data", command=command, environment=NOBODY_ENVIRONMENT) as up:
        assert "Permission denied" in refusal(up)


@as_root
def test_servers_never_run_as_root(data_dir: Path) -> None:
    """Started by root, the servers run under an account without rights."""
    with Up(data_dir) as up:
        described = up.await_ready().described()
        for name in ("redis", "postgres"):
            assert Path(f"/proc/{described[name]['pid']}").stat().st_uid != 0


@as_root
def test_folder_that_only_root_reaches(empty_dir: Path) -> None:
    """Where the servers' account cannot reach the folder, up.json says where the data is."""
    closed = empty_dir / "closed"
    closed.mkdir(parents=True)
    closed.chmod(0o700)
    with Up(closed / "data") as up:
        kept = Path(up.await_ready().described()["postgres"]["folder"]).parent
        assert not kept.is_relative_to(closed)
        up.stop()
    try:
        with Up(closed / "data") as up:
            assert Path(up.await_ready().described()["redis"]["folder"]).parent == kept
    finally:
        shutil.rmtree(kept)


def as_nobody() -> tuple[str, ...]:
    """Run as an ordinary user, who may read the interpreter wherever it is installed."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("setpriv is not installed")
    identity = (setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    if reaches_interpreter(identity):
        return (*identity, *COMMAND)
    # Root's interpreter may lie in a closed home; this right opens it for reading, not writing.
    reading = ("--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")
    if reaches_interpreter((*identity, *reading)):
        return (*identity, *reading, *COMMAND)
    pytest.skip("no ordinary user can reach the interpreter")


def reaches_interpreter(identity: tuple[str, ...]) -> bool:
    command = (*identity, sys.executable, "-c", "import service.cli")
    return subprocess.run(command, cwd="/", capture_output=True, check=False).returncode == 0


def test_redis_with_a_hole_in_its_data(copied_dir: Path) -> None:
    """What Redis refuses to read is put aside, and made anew from the ledger."""
    with Up(copied_dir, environment={"RINGFENCE_DEV_KEY": "development"}) as up:
        configure(up.await_ready().port, "/v1/locations/LONDON")
        assert up.stop() == 0
    (newest,) = (copied_dir / "redis" / "appendonlydir").glob("*.incr.aof")
    kept = newest.read_bytes()
    newest.write_bytes(kept[: len(kept) // 2] + bytes(100) + kept[len(kept) // 2 :])
    with Up(copied_dir, environment={"RINGFENCE_DEV_KEY": "development"}) as up:
        assert configure(up.await_ready().port, "/v1/locations/LONDON") == 200
        up.process.terminate()
        status, errors = up.finish()
    assert status == 0
    assert "Redis cannot read its data" in errors
    assert (copied_dir / "redis" / "appendonlydir.damaged").is_dir()


def configure(port: int, path: str) -> int:
    """Put something that the ledger remembers; 200 says that it was there already."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}",
        data=b"{}",
        method="PUT",
        headers={"Authorization": "Bearer development", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - as above
        return answer.status
