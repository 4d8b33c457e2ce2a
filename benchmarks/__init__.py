"""How fast, and how large: one file a question."""
