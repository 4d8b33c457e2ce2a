"""Where movements come from: sources, their deliveries, and one adapter a file."""
