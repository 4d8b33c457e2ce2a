"""A gate without a ledger, driven from plain functions, for tests that need a great many decisions."""

import asyncio
from collections.abc import Iterator

import pytest
from property.driven_gate import DrivenGate


@pytest.fixture
def driven_gate(redis_url: str) -> Iterator[DrivenGate]:
    """Give a gate on a loop of its own, since Hypothesis calls plain functions."""
    with asyncio.Runner() as runner:
        driven = DrivenGate(runner, redis_url)
        yield driven
        driven.close()
