"""What stops a start."""


class StartError(Exception):
    """Something outside the program prevents the start; the text is one sentence for a person."""
