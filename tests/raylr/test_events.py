import io
import pickle
from types import SimpleNamespace

from rich.console import Console

from raylr.events import ConsoleProgress, Silent
from raylr.quickstart import quickstart_spec


def row(**changes):
    base = {"trial": "search-S-1", "role": "search", "size": "S", "lr": 3e-3, "tokens": 250_000, "loss": 4.0}
    end = {"status": "completed", "target_loss": 4.0, "target_loss_stderr": 0.0, "target_tokens": 500_000}
    return base | end | changes


class Search:
    def recommend(self, cell):
        assert cell == "S"
        return SimpleNamespace(lr=2e-3, lr_low=1e-3, lr_high=4e-3)


def shown(*events, terminal=False):
    out = io.StringIO()
    with ConsoleProgress(Console(file=out, force_terminal=terminal, width=120)) as progress:
        progress.plan(quickstart_spec(), Search())
        progress.started("search-S-1", {"size": "S", "lr": 3e-3, "tokens": 500_000})
        for name, *arguments in events:
            getattr(progress, name)(*arguments)
    return out.getvalue()


def test_a_log_has_a_line_per_trial_with_the_optimum_so_far():
    text = shown(("stage", "Searching"), ("evaluated", row()), ("ended", row(tokens=500_000)))
    assert len(text.splitlines()) == 2
    assert "S        lr 3.00e-3  loss 4.0000 at 500k  → optimum 2.00e-3 (1.00e-3 to 4.00e-3)" in text


def test_every_outcome_is_told():
    assert "diverged at 250k" in shown(("ended", row(status="diverged")))
    truncated = row(status="truncated", target_loss=3.5, target_loss_stderr=0.01)
    assert "stopped at 250k, expect 3.5000 ± 0.0100 at 500k" in shown(("ended", truncated))
    assert "pruned at 250k" in shown(("ended", row(status="pruned")))


def test_a_terminal_shows_what_runs_and_what_was_spent():
    text = shown(("evaluated", row()), terminal=True)
    assert "250k of 500k" in text
    assert "of the full grid's" in text


def test_a_copy_on_disk_shows_nothing():
    progress = ConsoleProgress(Console(file=io.StringIO()))
    assert isinstance(pickle.loads(pickle.dumps(progress)), Silent)
