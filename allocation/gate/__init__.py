"""The gate: Lua on Redis that decides, atomically, whether a unit may be promised."""
