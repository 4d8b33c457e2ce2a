"""What the environment says of a run of the tests."""

import os

# What is tested over HTTP holds for any number of shards.
SHARDS = int(os.environ.get("TESTED_SHARDS", "1"))
