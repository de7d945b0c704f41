"""`python -m raylr`: the command line."""

from raylr.cli import main

main()
