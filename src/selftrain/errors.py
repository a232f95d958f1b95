"""The one exception that a person is meant to read."""

from collections.abc import Iterable


class UserError(Exception):
    """A mistake in a config, a file or a call.

    The message names the file, key or value and says what would be right. The command line prints it without a
    traceback and exits with 1.
    """


def by_problem(told: Iterable[tuple[str, str]]) -> list[str]:
    """A line per problem, with all places that have it, from pairs of a place and a problem.

    >>> by_problem([("labeled", "a.png: no such file"), ("val", "a.png: no such file")])
    ['labeled, val: a.png: no such file']
    """
    places: dict[str, list[str]] = {}
    for place, problem in told:
        places.setdefault(problem, []).append(place)
    return [f"{', '.join(dict.fromkeys(where))}: {problem}" for problem, where in places.items()]


def said(error: Exception) -> str:
    """The message of an error, as text that can be written anywhere: names of files may hold bytes that are none."""
    message = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return message.encode(errors="backslashreplace").decode()
