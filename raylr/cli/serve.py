"""`raylr serve`: the page of a study while it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from raylr.cli.console import make_console, say
from raylr.cli.places import Use

HOST, PORT = "127.0.0.1", 8275


def serve(directory: Annotated[Path, Use.READ], *, host: str = HOST, port: int = PORT) -> None:
    """Show a study as a page that follows it while it runs: progress, cost, curves, optima, law, log.

    The page reads the study's tables; nothing is written into the folder, and the running study is not affected.
    Ctrl-C ends it.

    Parameters
    ----------
    directory
        The study's folder, or its address. It may still be empty.
    host
        Address to listen at: 127.0.0.1 for this machine alone, 0.0.0.0 for everyone who can reach it.
    port
        Port to listen at; 0 takes a free one.
    """
    from raylr.live.answer import Child
    from raylr.live.board import Board
    from raylr.live.server import LiveServer
    from raylr.live.watcher import AREAS, Watcher

    console, board, child = make_console(), Board(AREAS), Child()
    watcher = Watcher(directory, board, compute=child)
    with LiveServer(board, host=host, port=port, requested=watcher.requested) as server:
        say(console, f"{directory} is shown at {server.url}; Ctrl-C ends this, and the study does not notice.")
        if server.public:
            say(
                console, "Everyone who can reach this address can read the study: there is no password.", style="yellow"
            )
        try:
            watcher.start()
            server.serve_forever()
        except KeyboardInterrupt:
            say(console, "Ended.")
            raise
        finally:
            child.end()
            watcher.stop()
