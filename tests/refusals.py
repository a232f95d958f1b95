"""Commands that are to fail: what they say, what is made wrong for them, and without which rights they run."""

import ctypes
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from walking import call

SAID = logging.ERROR


def refusing(
    caplog: pytest.LogCaptureFixture,
    folder: Path,
    *arguments: Any,
    told: tuple[str, ...],
    outputs: list[Path] = [],  # noqa: B006
) -> str:
    """Run a command that is to fail and leaves nothing below a folder; returns its one message, with all of `told`."""
    caplog.clear()
    assert call(*arguments) == 1
    (record,) = [one for one in caplog.records if one.levelno >= SAID]
    said = record.getMessage()
    assert "Traceback" not in said and record.exc_info is None
    assert not [part for part in told if part not in said], said
    assert not [path for path in outputs if path.exists()]
    assert not list(folder.rglob(".*unfinished*"))
    return said


@contextmanager
def unprivileged() -> Iterator[None]:
    """Without root's right to read and write what it may not, where root runs this (Linux)."""
    header, before = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, before) == 0
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH, of the effective ones
    assert libc.capset(header, without) == 0
    try:
        yield
    finally:
        libc.capset(header, before)


def changed(config: Any, changes: dict[str, Any]) -> Any:
    """A config with values at paths such as `experiments.dars.rounds.0.portion`."""
    config = deepcopy(config)
    for path, value in changes.items():
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        node = config
        for part in parents:
            node = node[part] if isinstance(node, list) else node.setdefault(part, {})
        node[last] = value
    return config


def written(folder: Path, config: Any) -> Path:
    path = folder / "config.yaml"
    text = config if isinstance(config, str | bytes) else yaml.safe_dump(config, sort_keys=False)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


class Code:
    """What makes a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.system, ("touch code-ran",)


COLOR = np.full((6, 8, 3), 90, np.uint8)
