"""Reads the Lua files into one library of Redis functions, with the enumerations that Python uses too.

A library, not a script, so that its functions are built once and not at every call. The names carry a digest
of the text: two versions of the service can use one Redis side by side.
"""

import hashlib
import re
from enum import IntEnum
from functools import cache
from importlib import resources

from allocation.commands import Movement, Operation
from allocation.outcomes import Kind, Outcome, State, Status

_INCLUDE = re.compile(r"^--- @include (\w+)\n", re.MULTILINE)
_SHARED: tuple[type[IntEnum], ...] = (Outcome, Kind, State, Status, Operation, Movement)


def _lua_table(enumeration: type[IntEnum]) -> str:
    members = ", ".join(f"{member.name} = {member.value}" for member in enumeration)
    return f"local {enumeration.__name__.upper()} = {{ {members} }}\n"


def lua_source(name: str) -> str:
    """Give the text of one Lua file as it lies in the package."""
    return (resources.files("allocation.gate") / "lua" / f"{name}.lua").read_text("utf-8")


@cache
def _body() -> str:
    files = "".join(f"do\n{lua_source(name)}end\n" for name in ("batch", "load"))
    shared = "".join(map(_lua_table, _SHARED))
    return shared + _INCLUDE.sub(lambda match: lua_source(f"include/{match[1]}"), files)


@cache
def version() -> str:
    """Give the digest that distinguishes this version's functions from every other's."""
    return hashlib.sha256(_body().encode()).hexdigest()[:12]


def library() -> str:
    """Give the whole library, ready for FUNCTION LOAD."""
    return f"#!lua name=ringfence_{version()}\n" + _body().replace("_VERSION", f"_{version()}")
