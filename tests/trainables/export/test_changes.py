from pathlib import Path

import pytest
from tiny_runs import BATCH, run

from raylr.trainables.data.corpus import Corpus
from raylr.trainables.export.changes import changes_of


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{}, {"zero_stage": 3}], ids=str)
def test_a_checkpoint_shows_what_the_probe_measured(corpus: Corpus, tmp_path: Path, fields: dict[str, int]) -> None:
    (row,) = run(corpus.path, steps=6, eval_at=[6 * BATCH], run_dir=tmp_path, probes_on=("changes",), **fields)
    (checkpoint,) = tmp_path.glob("step-*")
    found = changes_of(checkpoint, corpus.path)
    wanted = {name: value for name, value in row.items() if name.startswith("activation_change/")}
    assert len(wanted) > 10
    assert {name: value for name, value in found.items() if name in wanted} == pytest.approx(wanted, rel=1e-4)
    assert (found["tokens"], found["lr"], found["params"]) == (6 * BATCH, 3e-3, row["params"])
