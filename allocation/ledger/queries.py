"""Reads the named statements of `queries.sql`."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

_NAMED = re.compile(r"^-- name: (\w+)\n(.*?)(?=^-- name: |\Z)", re.MULTILINE | re.DOTALL)


@cache
def named_queries(package: str) -> Mapping[str, str]:
    """Give the statements of the `queries.sql` in a package, by name."""
    text = (resources.files(package) / "queries.sql").read_text("utf-8")
    return {name: statement.strip() for name, statement in _NAMED.findall(text)}
