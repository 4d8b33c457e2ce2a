"""Shards that were closed for a reason that only a person can settle."""

import asyncpg

from allocation.errors import LedgerUnavailable
from allocation.ledger.postgres_findings import PostgresFindings
from allocation.ledger.postgres_ledger import FAULTS
from allocation.shards.layout import read_layout


async def closed_shards(database_url: str) -> dict[int, str]:
    """Give the reason for each shard that is closed. Raises LedgerUnavailable."""
    reasons: dict[int, str] = {}
    for shard in range(await _shards(database_url)):
        findings = PostgresFindings(database_url, shard)
        try:
            reason = await findings.closed_reason()
        finally:
            await findings.close()
        if reason is not None:
            reasons[shard] = reason
    return reasons


async def reopen_shard(database_url: str, shard: int) -> bool:
    """Let a shard be taken over again; says whether it was closed. Raises LedgerUnavailable."""
    findings = PostgresFindings(database_url, shard)
    try:
        return await findings.reopen_shard()
    finally:
        await findings.close()


async def _shards(database_url: str) -> int:
    try:
        connection = await asyncpg.connect(database_url)
        try:
            return await read_layout(connection)
        finally:
            await connection.close()
    except FAULTS as fault:
        raise LedgerUnavailable from fault
