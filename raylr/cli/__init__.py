"""The command line."""

from raylr.cli.app import main

__all__ = ["main"]
