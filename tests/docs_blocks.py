"""Reads the pages of the documentation: their code blocks, links and tables."""

import json
import re
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


class Block(NamedTuple):
    """One fenced block of a page."""

    language: str
    text: str


def page(name: str) -> str:
    """Give the text of a page."""
    return (ROOT / name).read_text("utf-8")


def pages() -> dict[str, str]:
    """Give every page for readers, by its name."""
    paths = (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "benchmarks" / "README.md")
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted(paths)}


def blocks(text: str, *languages: str) -> list[Block]:
    """List the blocks of a page, those of some languages or all."""
    found = [Block(language, body) for language, body in _BLOCK.findall(text)]
    return [block for block in found if not languages or block.language in languages]


def without_blocks(text: str) -> str:
    """Give the prose of a page."""
    return _BLOCK.sub("", text)


def links(text: str) -> list[str]:
    """List where a page points to."""
    return _LINK.findall(without_blocks(text))


def anchors(text: str) -> set[str]:
    """Give the anchors that GitHub makes of a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in _HEADING.findall(without_blocks(text))
    }


def rows(text: str) -> list[list[str]]:
    """List the rows of all tables, cell by cell, titles and rules left out."""
    lines = without_blocks(text).splitlines()
    rules = {at for at, line in enumerate(lines) if re.fullmatch(r"\|[\s:|-]+\|", line)}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for at, line in enumerate(lines)
        if line.startswith("|") and at not in rules and at + 1 not in rules
    ]


def code_spans(text: str) -> list[str]:
    """List what stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", without_blocks(text))


def commands(text: str, program: str) -> list[str]:
    """List the command lines of a program: those in backticks, and those in blocks of shell."""
    shell = [line.strip() for block in blocks(text, "sh") for line in block.text.splitlines()]
    said = [*code_spans(text), *shell]
    return [line for line in said if line.startswith(f"{program} ")]


class Reader:
    """Takes the blocks of a page in their order, so that none is passed over."""

    def __init__(self, text: str) -> None:
        self.left = blocks(text)

    def take(self, language: str) -> str:
        """Take the next block, which must be in that language."""
        block = self.left.pop(0)
        assert block.language == language, f"not {language}: {block}"
        return block.text


def documents(text: str) -> list[Any]:
    """Read the JSON documents of a text that has nothing else."""
    decoder, found, text = json.JSONDecoder(), [], text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:].lstrip()
    return found


def agrees(shown: Any, found: Any, varying: Container[str]) -> bool:
    """Say whether an answer is the one that a page shows.

    Fields that vary must be there and of the kind that is shown. `items` may be shown in part.
    """
    if isinstance(shown, dict) and isinstance(found, dict):
        return shown.keys() == found.keys() and all(
            type(shown[name]) is type(found[name])
            if name in varying
            else _has_items(shown[name], found[name], varying)
            if name == "items"
            else agrees(shown[name], found[name], varying)
            for name in shown
        )
    if isinstance(shown, list) and isinstance(found, list):
        pairs = zip(shown, found, strict=False)
        return len(shown) == len(found) and all(agrees(*pair, varying) for pair in pairs)
    return shown == found


def _has_items(shown: list[Any], found: list[Any], varying: Container[str]) -> bool:
    return all(any(agrees(each, other, varying) for other in found) for each in shown)
