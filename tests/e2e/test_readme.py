"""What README and the page for integrators show is what happens, on a `ringfence up` as a reader starts it."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from docs_blocks import Reader, agrees, blocks, documents, page
from e2e.running import COMMAND, Up, clean_environment, eventually
from signing import signed_headers

ADDRESS = "http://127.0.0.1:8080"
# These differ from start to start; the pages show one of them.
VARYING = {"expires_at", "received_at", "secret", "state", "url", "version"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
# `ringfence` as the tests run it, whatever is on the path.
PRELUDE = """\
set -eu
ringfence() { "$PYTHON" -c 'from service.cli import main; main()' "$@"; }
"""
COMMAND_SECONDS = 30.0


class Reading:
    """A reader at a shell, beside the service that they have started."""

    def __init__(self, up: Up, printed: Path) -> None:
        self.up = up
        self.printed = printed.read_text()
        (self.key,) = re.findall(r"^Development key: (\S+)$", self.printed, re.MULTILINE)
        self.address = f"http://127.0.0.1:{up.port}"
        self._prelude = PRELUDE
        self._environment = clean_environment(up.data_dir, up.port) | {
            "KEY": self.key,
            "PYTHON": sys.executable,
            "NO_PROXY": "127.0.0.1",
        }

    def define(self, block: str) -> None:
        """Keep what a block defines for those after it."""
        self._prelude += block

    def shell(self, block: str) -> str:
        """Run a block of shell, and give what it prints."""
        done = self._run("/bin/sh", "-c", self._prelude + self._here(block))
        assert done.returncode == 0, (block, done.stdout, done.stderr)
        return done.stdout

    def python(self, block: str, **variables: str) -> str:
        """Run a block of Python until it ends well, and give what it prints then."""
        self._environment |= variables
        printed: list[str] = []

        def ended_well() -> bool:
            done = self._run(sys.executable, "-c", self._here(block))
            printed.append(done.stdout)
            return done.returncode == 0

        eventually(ended_well)
        return printed[-1]

    @contextmanager
    def following(self, block: str) -> Iterator[Iterator[str]]:
        """Run a block of shell that does not end, and give the lines that it prints, until this ends."""
        script = self._prelude + self._here(block)
        with subprocess.Popen(
            ["/bin/sh", "-c", script],
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            try:
                yield process.stdout
            finally:
                os.killpg(process.pid, signal.SIGKILL)

    def get(self, path: str) -> Any:
        """Read an answer of the service."""
        headers = {"authorization": f"Bearer {self.key}"}
        answer = httpx.get(self.address + path, headers=headers, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def _here(self, block: str) -> str:
        return block.replace(ADDRESS, self.address)

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd="/",
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )


@pytest.fixture
def reading(empty_dir: Path) -> Iterator[Reading]:
    """Start `ringfence up` on an empty folder, with the demo catalogue and the key that it makes up."""
    printed = empty_dir.with_name("printed")
    environment = {
        "PRINTED": str(printed),
        "RINGFENCE_DEMO": "1",
        "RINGFENCE_ALLOW_PRIVATE_STOREFRONTS": "1",
    }
    command = ("/bin/sh", "-c", 'exec "$@" >"$PRINTED"', "sh", *COMMAND)
    with Up(empty_dir, command=command, environment=environment) as up:
        up.await_ready()
        yield Reading(up, printed)


def expect(shown: str, printed: str) -> None:
    """Check that what was printed is what a page shows."""
    wanted, found = documents(shown), documents(printed)
    assert len(wanted) == len(found), (shown, printed)
    for each, other in zip(wanted, found, strict=True):
        assert agrees(each, other, VARYING), (each, other)


def test_readme(reading: Reading) -> None:
    """Each `curl` of the README gives the answer under it."""
    left = blocks(page("README.md"), "sh", "json")
    calls = [at for at, block in enumerate(left) if block.text.startswith("curl ")]
    assert len(calls) >= 2
    for at in calls:
        assert left[at + 1].language == "json", left[at]
        expect(left[at + 1].text, reading.shell(left[at].text))


def test_printed_commands(reading: Reading) -> None:
    """The two `curl` lines that `up` prints work as they are: the units that one holds, the other misses."""
    reserve, look = [line for line in reading.printed.splitlines() if line.startswith("curl ")]
    assert reading.address in reserve
    before = reading.get("/v1/availability?channel=web&sku=TEE-BLACK-M")["items"][0]["available"]
    (held,) = documents(reading.shell(reserve))
    assert (held["state"], [line["quantity"] for line in held["lines"]]) == ("held", [2])
    (shown,) = documents(reading.shell(look))
    assert shown["items"][0]["available"] == before - 2


def test_integrations(reading: Reading) -> None:
    """The page for integrators, from its first block to its last, does what it says."""
    blocks_left = Reader(recent(page("docs/integrations.md")))
    reading.define(blocks_left.take("sh"))
    deliver(reading, blocks_left)
    retry(reading, blocks_left)
    for _ in ("movements", "snapshot"):
        command = blocks_left.take("sh")
        expect(blocks_left.take("json"), reading.shell(command))
    follow(reading, blocks_left)
    hear(reading, blocks_left)
    assert blocks_left.left == []


def recent(text: str) -> str:
    """Move the times of a page, so that the newest one is an hour ago and their distances stay."""
    times = {written: datetime.fromisoformat(written) for written in TIME.findall(text)}
    passed = datetime.now(UTC) - timedelta(hours=1) - max(times.values())
    return TIME.sub(lambda found: f"{times[found[0]] + passed:%Y-%m-%dT%H:%M:%SZ}", text)


def deliver(reading: Reading, page_left: Reader) -> None:
    """Add the source, deliver by the page's own program, and what the page says was delivered after it."""
    secret = reading.shell(page_left.take("sh")).strip()
    program, shown = page_left.take("python"), page_left.take("json")
    # The service may hear of the new source a moment after the command has ended.
    expect(shown, reading.python(program, SECRET=secret))
    (letters,) = documents(page_left.left[1].text)
    (letter,) = letters["items"]
    body = letter["body_start"].encode()
    headers = signed_headers(secret, letter["webhook_id"], body)
    url = f"{reading.address}/v1/webhooks/wms"
    answer = httpx.post(url, content=body, headers=headers, trust_env=False)
    assert answer.status_code == 200, answer.text


def retry(reading: Reading, page_left: Reader) -> None:
    """Look at the dead letter, remove its cause and let it be tried again, until it is applied."""
    command, shown = page_left.take("sh"), page_left.take("json")
    eventually(lambda: "goods-in-8" in reading.shell(command))
    expect(shown, reading.shell(command))
    command, shown = page_left.take("sh"), page_left.take("json")
    expect(shown, reading.shell(command))
    eventually(lambda: reading.get("/v1/stock/TEE-GREEN-M")["locations"] != [])


def follow(reading: Reading, page_left: Reader) -> None:
    """Follow the deltas while one unit is sold elsewhere, and see what the page shows, line by line."""
    stream, sale, shown = page_left.take("sh"), page_left.take("sh"), page_left.take("text")
    with reading.following(stream) as lines:
        wanted = shown.splitlines()
        assert next(lines).rstrip("\n") == wanted.pop(0)
        reading.shell(sale)
        for line in wanted:
            found = next(lines).rstrip("\n")
            assert without_version(found) == without_version(line)


def without_version(line: str) -> str:
    return re.sub(r'"version":\d+', '"version":', line)


def hear(reading: Reading, page_left: Reader) -> None:
    """Register a storefront that takes pushes by the page's own function, and look at its state."""
    command, shown, push = page_left.take("sh"), page_left.take("json"), page_left.take("http")
    defined: dict[str, Any] = {}
    exec(page_left.take("python"), defined)  # noqa: S102 - a program that the page shows
    with storefront(defined["take"]) as shop:
        url = f"http://127.0.0.1:{shop.server_port}/ringfence"
        answer = reading.shell(command.replace("https://shop.example/ringfence", url))
        expect(shown, answer)
        shop.secret = documents(answer)[0]["secret"]
        command, shown = page_left.take("sh"), page_left.take("json")
        (wanted,) = documents(shown)
        eventually(lambda: reading.get("/v1/storefronts/shop")["delivered"] == wanted["delivered"])
        expect(shown, reading.shell(command))
        snapshot = reading.get("/v1/channels/web/snapshot")["items"]
    figures = {sku: figure["available"] for sku, figure in defined["newest"].items()}
    assert figures == {item["sku"]: item["available"] for item in snapshot}
    expect_push(push, shop.pushes[-1])
    assert defined["take"](shop.pushes[-1][0], shop.pushes[-1][1] + b" ", shop.secret) == 401


def expect_push(shown: str, push: tuple[dict[str, str], bytes]) -> None:
    """Check that a push has the headers and the fields that the page shows."""
    head, _, body = shown.partition("\n\n")
    headers, found = push
    for line in head.splitlines()[1:]:
        name, _, text = line.partition(": ")
        sent = headers[name.lower()]
        if name.lower() != "host":
            assert (len(sent), sent[:3]) == (len(text), text[:3]), name
    varying = {"timestamp", "sku", "available", "version"}
    assert agrees(json.loads(body), json.loads(found), varying)


class Shop(ThreadingHTTPServer):
    """A storefront that answers what a function says, and remembers what it was told."""

    daemon_threads = True
    secret = ""

    def __init__(self, take: Callable[[dict[str, str], bytes, str], int]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.take = take
        self.pushes: list[tuple[dict[str, str], bytes]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        shop = self.server
        assert isinstance(shop, Shop)
        headers = {name.lower(): text for name, text in self.headers.items()}
        body = self.rfile.read(int(headers["content-length"]))
        # The first pushes may come before the answer that has the secret.
        deadline = time.monotonic() + COMMAND_SECONDS
        while not shop.secret and time.monotonic() < deadline:
            time.sleep(0.01)
        status = shop.take(headers, body, shop.secret)
        shop.pushes.append((headers, body))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def storefront(take: Callable[[dict[str, str], bytes, str], int]) -> Iterator[Shop]:
    """Open a storefront."""
    with Shop(take) as shop:
        serving = threading.Thread(target=shop.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield shop
        finally:
            shop.shutdown()
            serving.join()
