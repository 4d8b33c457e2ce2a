"""The ledger: the append-only record in Postgres of everything that the gate decided."""
