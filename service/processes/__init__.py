"""Several service processes on one port, and the one that keeps them running."""
