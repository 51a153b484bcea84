"""The error that the command line shows as one line."""


class CommandError(Exception):
    """What the user asked for cannot be done; the message says what was wrong and what would be right."""
