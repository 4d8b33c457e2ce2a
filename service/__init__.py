"""The process around the engine: API, console, workers, adapters and the command line."""
