"""`python -m selftrain` is the command line, whichever environment's Python it is; so the graph calls its jobs."""

import atexit
import os
import sys

from selftrain.cli import main

if __name__ == "__main__":
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    else:
        code = 0
    # A job's files are there and closed. To take an interpreter down that has PyTorch is a fifth of its start again.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
