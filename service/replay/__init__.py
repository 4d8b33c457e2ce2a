"""Sells a published order history through a running service, and says what became of every row."""
