"""`python -m selftrain` is the command line, whichever environment's Python it is."""

from selftrain.cli import main

if __name__ == "__main__":
    main()
