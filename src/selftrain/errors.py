"""The one exception that a person is meant to read."""


class UserError(Exception):
    """A mistake in a config, a file or a call.

    The message names the file, key or value and says what would be right. The command line prints it without a
    traceback and exits with 1.
    """
