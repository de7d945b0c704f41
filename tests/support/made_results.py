"""Results of made-up studies: whole, and with every piece that can be missing."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import synthetic
import yaml

from raylr.analysis.cost import cost_of
from raylr.analysis.studyfit import check_prediction, fit_study
from raylr.quickstart import QUICKSTART_YAML
from raylr.spec import StudySpec
from raylr.store.runtable import evaluations_table
from raylr.study import StudyResult


def made_spec(sizes: tuple[str, ...] = ("S", "M", "L"), target: str | None = "XL", name: str = "made") -> StudySpec:
    """The quickstart's spec with other names, the made-up study's budget, and a corpus that is not there (any more)."""
    data = yaml.safe_load(QUICKSTART_YAML)
    data |= {"corpus": {"path": "/moved/elsewhere"}, "model": data["model"] | {"vocab_size": 1024}}
    data |= {"name": name, "sizes": dict(zip(sizes, data["sizes"].values(), strict=False)), "budgets": ["500k", "1M"]}
    data["target"] = data["target"] | {"name": target, "tokens": "2M"} if target else None
    return StudySpec.model_validate(data)


def rows_of(folder: Path, names: dict[str, str]) -> list[dict[str, Any]]:
    """The rows of the made-up study with other names of sizes."""
    rows: list[dict[str, Any]] = synthetic.synthetic_table(folder / "made").read().to_pylist()
    return [row | {"size": names.get(row["size"], row["size"])} for row in rows]


def diverge(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"loss": math.nan, "diverged": True}


def made_result(folder: Path, rows: list[dict[str, Any]], spec: StudySpec) -> StudyResult:
    """Put rows into a study's folder and together as a result, as `FittingStudy.result` does."""
    evaluations_table(folder).append(rows)
    table: pa.Table = evaluations_table(folder).read()
    fit = fit_study(table, spec.token_budgets, conditions=spec.conditions())
    prediction = fit.law.predict(synthetic.TARGET, spec.target_tokens) if spec.target else None
    return StudyResult(
        spec=spec,
        directory=folder,
        fit=fit,
        prediction=prediction,
        check=check_prediction(table, prediction.lr, spec.target_tokens) if prediction else None,
        cost=cost_of(table, sizes=list(spec.sizes), grid=spec.lr.grid, budget=max(spec.token_budgets)),
    )
