"""The command line, as `raylr` and as `python -m raylr`."""

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends quietly until `main` hears it, instead of amid an import

from raylr.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
