"""One command of `ringfence` a file."""
