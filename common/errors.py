"""The error that the command line prints as one line."""


class CommandError(Exception):
    """A command cannot be carried out; the message names the cause and, where there is one, a remedy."""
