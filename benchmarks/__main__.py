"""All benchmarks, one table: `python benchmarks [--quick]`. Each also runs alone: `python benchmarks/selection.py`."""

import sys
from importlib import import_module

from measures import Line, show

EACH = ("selection", "reading", "prediction", "training", "mixing", "sisc", "graph")


def main() -> None:
    lines: list[Line] = []
    for name in EACH:
        print(f"{name} ...", file=sys.stderr)
        lines += import_module(name).measure([argument for argument in sys.argv[1:] if argument == "--quick"])
    show(lines)


if __name__ == "__main__":
    main()
