"""`python -m raylr`: the command line."""

from raylr.cli.app import main

main()
