"""What an image may be called."""

from __future__ import annotations

import unicodedata

UNWRITABLE = ("Cc", "Cs")
"""Unicode's categories of control characters, and of what stands for bytes that are no text."""


def writable(text: str) -> bool:
    """Whether a table or a message can have it on a line of its own: no line break is in it, nor what is no text."""
    return text.isprintable() or not any(unicodedata.category(sign) in UNWRITABLE for sign in text)


def check_names(names: list[str]) -> None:
    """Whether files may be named by these, below a folder and never beside it, each once.

    A split's images are named by their files' stems; a folder before it does no harm.

    Raises:
        ValueError: with the first that is no name of an image, or is there twice.

    >>> check_names(["a", "folder/b"])
    >>> check_names(["../a"])
    Traceback (most recent call last):
    ...
    ValueError: an image is called '../a'
    """
    for name in names:
        parts = name.split("/")
        if not parts[0] or ".." in parts or parts[-1] in ("", ".") or not writable(name):
            raise ValueError(f"an image is called {name!r:.60}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the image {twice!r:.60} is there twice")
