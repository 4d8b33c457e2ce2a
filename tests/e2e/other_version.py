"""`ringfence` with functions of another text: all that a process of another version has of its own in Redis."""

from allocation.gate import scripts
from service.cli import main

body = scripts._body() + "-- Another version of the functions.\n"
scripts._body = lambda: body

if __name__ == "__main__":
    main()
