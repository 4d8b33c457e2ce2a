"""The house rules that a machine can check."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from allocation.gate.keys import KEY_NAMES
from allocation.gate.scripts import lua_source

ROOT = Path(__file__).parents[1]
FILE_LINES_MAX = 350
# A suite may be longer than the code that it tests.
TEST_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
LUA_FUNCTION_LINES_MAX = 70
SQL = re.compile(
    r"\b(SELECT .+ FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM|CREATE TABLE)\b", re.DOTALL
)
INCLUDE = re.compile(r"^--- @include (\w+)$", re.MULTILINE)
HEADER = re.compile(r"\A--\[\[\n(.*?)\n\]\]\n", re.DOTALL)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _files(*endings: str) -> list[Path]:
    listed = subprocess.run(
        ["/usr/bin/env", "git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout.splitlines()
    paths = [ROOT / name for name in listed if name.endswith(endings)]
    return [path for path in paths if path.is_file()]


def _named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, Function):
            yield node


def _length(function: Function) -> int:
    """Count the lines of a function without its docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is None:
        return lines
    return lines - ((first.end_lineno or first.lineno) - first.lineno + 1)


@pytest.fixture(scope="module")
def python_files() -> list[Path]:
    """Name every Python file of the project."""
    return _files(".py")


@pytest.fixture(scope="module")
def lua_files() -> list[Path]:
    """Name every Lua file of the project."""
    return _files(".lua")


def test_no_file_is_long(python_files: list[Path], lua_files: list[Path]) -> None:
    """A file that has grown too long is two files."""
    counted = {
        _named(path): len(path.read_text("utf-8").splitlines())
        for path in (*python_files, *lua_files, *_files(".sql"))
    }
    most = {
        name: TEST_LINES_MAX if name.startswith("tests/") else FILE_LINES_MAX for name in counted
    }
    assert {name: lines for name, lines in counted.items() if lines > most[name]} == {}


def test_no_function_is_long(python_files: list[Path]) -> None:
    """A function fits on a screen."""
    long = [
        f"{_named(path)}:{function.name}"
        for path in python_files
        for function in _functions(path)
        if _length(function) > FUNCTION_LINES_MAX
    ]
    assert long == []


def test_no_lua_function_is_long(lua_files: list[Path]) -> None:
    """Nor is a function of the gate longer than a screen, the functions that it makes not counted."""
    nested = re.compile(r"^  (?:local )?function .*?^  end$", re.MULTILINE | re.DOTALL)
    found = [
        (f"{_named(path)}: {body.splitlines()[0]}", nested.sub("", body).count("\n"))
        for path in lua_files
        for body in re.findall(
            r"^(?:local )?function .*?^end$", path.read_text("utf-8"), re.MULTILINE | re.DOTALL
        )
    ]
    assert found
    assert [name for name, lines in found if lines > LUA_FUNCTION_LINES_MAX] == []


def test_every_module_says_what_it_is(python_files: list[Path]) -> None:
    """Each Python file opens with a sentence in one line."""
    silent = []
    for path in python_files:
        said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        if not re.match(r".+[.:?](\n\n|\Z)", said, re.DOTALL) or "\n" in said.split("\n\n")[0]:
            silent.append(_named(path))
    assert silent == []


def test_every_test_states_a_behaviour(python_files: list[Path]) -> None:
    """Each test has a docstring of one line."""
    silent = [
        f"{_named(path)}:{function.name}"
        for path in python_files
        if path.name.startswith("test_")
        for function in _functions(path)
        if function.name.startswith("test_")
        and (ast.get_docstring(function) or "\n").splitlines()[0].strip() == ""
    ]
    assert silent == []


def test_no_statement_of_sql_stands_in_python(python_files: list[Path]) -> None:
    """SQL lies in files of its own; least of all is it put together from pieces."""
    found = []
    for path in python_files:
        if path.is_relative_to(ROOT / "tests"):
            continue
        tree = ast.parse(path.read_text("utf-8"))
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
        found += [
            f"{_named(path)}:{node.lineno}"
            for node in texts
            if isinstance(node.value, str) and SQL.search(node.value)
        ]
    assert found == []


def test_every_lua_file_opens_with_its_contract(lua_files: list[Path]) -> None:
    """The header says in a sentence what the file does."""
    for path in lua_files:
        header = HEADER.match(path.read_text("utf-8"))
        assert header, _named(path)
        assert re.match(r"\s+[A-Z].+[.:]$", header[1].partition("\n\n")[0], re.DOTALL), _named(path)


def test_every_include_exists_and_is_used(lua_files: list[Path]) -> None:
    """The batch script names each include once, and no include lies about unused."""
    present = {path.stem for path in lua_files if path.parent.name == "include"}
    named = INCLUDE.findall(lua_source("batch"))
    assert sorted(named) == sorted(present)


def test_the_header_of_the_batch_agrees_with_what_it_reads() -> None:
    """Each key and argument in the header is read, and none is read that is not in the header."""
    source = lua_source("batch")
    header = HEADER.match(source)
    assert header is not None
    code = source[header.end() :] + "".join(
        _without_header(lua_source(f"include/{name}")) for name in INCLUDE.findall(source)
    )
    documented_keys = dict(re.findall(r"KEYS\[(\d+)\]\s+(\w+)", header[1]))
    assert list(documented_keys.values()) == list(KEY_NAMES)
    assert _indices(r"keys\[(\d+)\]", code) == set(map(int, documented_keys))
    documented = _indices(r"ARGV\[(\d+)\]", header[1])
    assert _indices(r"arguments\[(\d+)\]", code) == documented
    assert documented == set(range(1, len(documented) + 1))


def test_outcomes_of_the_gate_are_names_never_numbers(lua_files: list[Path]) -> None:
    """A bare number in place of OUTCOME.X would be a code that nobody can look up."""
    for path in lua_files:
        text = _without_header(path.read_text("utf-8"))
        assert not re.search(r"\b(answer|refuse|record_decision)\(-?\d", text), _named(path)


def test_every_page_has_one_title() -> None:
    """A markdown file begins with its title, and has no second one."""
    for path in _files(".md"):
        text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        titles = [line for line in text.splitlines() if line.startswith("# ")]
        assert len(titles) == 1, _named(path)
        assert text.startswith("# "), _named(path)


def _indices(pattern: str, text: str) -> set[int]:
    return {int(index) for index in re.findall(pattern, text)}


def _without_header(source: str) -> str:
    return HEADER.sub("", source)
