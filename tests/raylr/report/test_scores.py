from pathlib import Path

import pyarrow as pa
from made_scores import run_table, scored

from raylr.evaluation.tables import Attempt, AttemptEnd, AttemptTable, QuestionTable
from raylr.report.scores import score_sections

RUNS = {"check-XL-a": 0.2, "check-XL-b": 0.0}
TOKENS = (100_000, 300_000, 900_000, 1_000_000)


def test_a_section_for_each_backend_with_figures_fits_and_failures(tmp_path: Path) -> None:
    table = run_table(RUNS, TOKENS)
    QuestionTable(tmp_path).append(scored(RUNS, TOKENS).to_pylist())
    QuestionTable(tmp_path).append(scored(RUNS, TOKENS[-1:], slope=0.0, backend="opencompass").to_pylist())
    failed = Attempt(run="c", checkpoint="c/step-0000000001", end=AttemptEnd.FAILED, reason="OSError: full")
    AttemptTable(tmp_path).append(failed, measurement="x", number=0)
    ours, theirs = score_sections(tmp_path, table)
    assert (ours.backend, theirs.backend) == ("lm-eval", "opencompass")
    assert list(ours.figures) == ["scores-lm-eval", "scores-lm-eval-mmlu-over-loss", "scores-lm-eval-cmmlu-over-loss"]
    assert "corrected for the answer bias" in ours.figures["scores-lm-eval"].caption
    assert list(theirs.figures) == ["scores-opencompass"]
    assert len(ours.rows) == len(RUNS) * len(TOKENS)
    assert {len(row) for row in ours.rows} == {len(ours.head)} == {12}
    first = dict(zip(ours.head[:5], ours.rows[0], strict=False))
    assert first["tokens"] == "100k"
    assert first["phase"] == "stable"
    assert first["loss"] == "5.2000"
    assert " ± " in first["MMLU, %"]
    assert any("per nat of loss, over 8 checkpoints" in remark for remark in ours.remarks)
    assert any("accuracy is at chance in every evaluation" in remark for remark in theirs.remarks)
    assert any("a line takes 3" in remark for remark in theirs.remarks)
    assert ours.remarks[-1] == "No score of c/step-0000000001: OSError: full"


def test_several_evaluations_of_a_checkpoint_and_none(tmp_path: Path) -> None:
    assert score_sections(tmp_path, run_table(RUNS, TOKENS)) == []
    assert not list(tmp_path.iterdir())
    both = pa.concat_tables([scored(RUNS, TOKENS), scored(RUNS, TOKENS, engine="another")])
    QuestionTable(tmp_path).append(both.to_pylist())
    (section,) = score_sections(tmp_path, run_table(RUNS, TOKENS))
    assert any("at 100k tokens was evaluated with several settings" in remark for remark in section.remarks)
    assert list(section.figures) == ["scores-lm-eval"]
