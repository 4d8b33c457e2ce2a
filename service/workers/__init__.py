"""Duties that go on beside the requests: one a file, each `run_once() -> int` under the one loop."""
