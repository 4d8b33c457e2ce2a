"""`ringfence replay` as a person meets it, on the real history and on one with every kind of dirt."""

import gzip
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REAL_FILE = ROOT.parent / "shared/data/online-retail.csv.gz"
COMMAND = (sys.executable, "-c", "from service.commands.replay import replay; replay()")
REPLAY_SECONDS = 180
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
DATE = "2010-12-01 08:26:00"
# Every reason, with the row that is skipped for it; the rest of each row is sound.
DIRTY = {
    "unreadable date": "536380,85123A,T-LIGHT,6,yesterday,2.55,17850,United Kingdom",
    "of another month": "536381,85123A,T-LIGHT,6,2011-01-04 10:00:00,2.55,17850,United Kingdom",
    "wrong number of columns": "536382,85123A,T-LIGHT",
    "blank invoice, stock code or country": f"536383,,T-LIGHT,6,{DATE},2.55,17850,United Kingdom",
    "neither an invoice nor a cancellation": f"A563185,85123A,Debt,1,{DATE},9,,United Kingdom",
    "a code that is no goods": f"536384,POST,POSTAGE,1,{DATE},18,12583,France",
    "unreadable quantity or price": f"536385,85123A,T-LIGHT,six,{DATE},2.55,17850,Germany",
    "quantity 0": f"536386,85123A,T-LIGHT,0,{DATE},2.55,17850,United Kingdom",
    "quantity above 10,000": f"541431,85123A,T-LIGHT,74215,{DATE},1.04,12346,United Kingdom",
    "negative outside a cancellation": f"536387,85123A,damages,-9,{DATE},0,,United Kingdom",
    "positive in a cancellation": f"C536388,85123A,T-LIGHT,1,{DATE},2.55,17850,United Kingdom",
    "blank description": f"536389,85123A,,4,{DATE},2.55,17850,United Kingdom",
    "no price and no customer": f"536390,85123A,found,4,{DATE},0,,United Kingdom",
}
# 30 of 85123A are asked for, so 27 are there: the last cart gets 2 of its 5.
SALES = (
    f"536365,85123A,T-LIGHT,6,{DATE},2.55,17850.0,United Kingdom",
    f"536365,85123a,T-LIGHT,2,{DATE},2.55,17850.0,United Kingdom",
    f"536366,85123A,T-LIGHT,17,{DATE},2.55,17850.0,United Kingdom",
    f"536367,85123A,T-LIGHT,5,{DATE},2.55,17850.0,United Kingdom",
    f"C536379,85123A,T-LIGHT,-3,{DATE},2.55,17850.0,United Kingdom",
    "C536391,22423,CAKE STAND,-1,12/1/2010 10:03,12.75,,EIRE",
)

pytestmark = pytest.mark.timeout(REPLAY_SECONDS + 60)


def replay(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RINGFENCE_")}
    return subprocess.run(
        [*COMMAND, *arguments],
        env=kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=REPLAY_SECONDS,
        check=False,
    )


def write(path: Path, rows: Iterable[str]) -> Path:
    text = "\r\n".join((HEADER, *rows)) + "\r\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def counts(output: str) -> dict[str, list[str]]:
    """Read the tables: name of the line -> its figures."""
    lines = (line.strip("│ \n").split("│") for line in output.splitlines() if "│" in line)
    return {name.strip(): [cell.strip() for cell in cells] for name, *cells in lines}


def test_every_kind_of_row(tmp_path: Path) -> None:
    """Each row is sold, returned or skipped for its reason, the counts add up and the audit holds."""
    done = replay(
        write(tmp_path / "history.csv.gz", (*DIRTY.values(), *SALES)), "--month", "2010-12"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = counts(done.stdout)
    for reason in DIRTY:
        assert told[f"skipped: {reason}"] == ["1"], reason
    assert told["sold"][0] == "3"
    assert told["sold in part"] == ["1"]
    assert told["refused"] == ["0"]
    assert told["returned"] == ["2"]
    assert told["all of these"] == told["rows read"] == [str(len(DIRTY) + len(SALES))]
    assert told["carts sold in part"][0] == "1"
    assert told["refused: on_hand"] == ["", "1", "3"]
    assert told["returned to their order"] == ["", "", "3"]
    assert told["returned, order unknown"] == ["", "", "1"]
    assert "POST 1" in done.stdout
    assert "Oversold 0" in done.stdout
    assert "The audit holds." in done.stdout


@pytest.mark.skipif(not REAL_FILE.exists(), reason="the real order history is not on this machine")
def test_real_month() -> None:
    """One month of the real history is sold with nothing oversold, and every row is accounted for."""
    done = replay(REAL_FILE, "--month", "2010-12")
    assert done.returncode == 0, done.stdout + done.stderr
    told = counts(done.stdout)
    assert told["all of these"] == told["rows read"] == ["541,909"]
    assert told["skipped: of another month"] == ["499,428"]
    assert told["returned"] == ["698"]
    assert int(told["refused: on_hand"][2].replace(",", "")) > 0
    assert "Oversold 0" in done.stdout


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"Invoice,Code\r\n1,2\r\n", "does not begin with the columns"),
        (gzip.compress(b"InvoiceNo")[:-9], "cannot be read to its end"),
        (b"\x1f\x8bnot gzip at all", "cannot be read to its end"),
    ],
)
def test_unreadable_file(tmp_path: Path, content: bytes, sentence: str) -> None:
    """A file that is no order history is one sentence, and nothing is started."""
    path = tmp_path / "history.csv.gz"
    path.write_bytes(content if content[:1] == b"\x1f" else gzip.compress(content))
    done = replay(path)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_url_without_key(tmp_path: Path) -> None:
    """An address without a key is refused before anything is sent."""
    done = replay(write(tmp_path / "history.csv", SALES), "--url", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "--url and --key belong together" in done.stderr
