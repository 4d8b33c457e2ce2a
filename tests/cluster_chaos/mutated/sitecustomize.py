"""Takes a safeguard away from a service before it starts: Python imports this where a run puts it in its path."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from cluster_chaos.mutants import MUTANTS

MUTANTS[os.environ["CHAOS_MUTANT"]](setattr)
