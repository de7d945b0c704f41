from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from raylr.analysis.runs import RunEnd
from raylr.errors import DataError
from raylr.imports.sources import read_runs


def test_null_is_missing_and_nan_diverged(tmp_path: Path) -> None:
    table = pa.table({"lr": [1e-3, 1e-2, 1e-1], "loss": pa.array([3.0, float("nan"), None])})
    pq.write_table(table, tmp_path / "a.parquet")
    feather.write_feather(table, str(tmp_path / "a.arrow"))
    for name in ("a.parquet", "a.arrow"):
        found = read_runs([tmp_path / name])
        assert [run.end for run in found.runs] == [RunEnd.COMPLETED, RunEnd.DIVERGED]
        assert sum(map(len, found.left_out.values())) == 1


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        read_runs([tmp_path / "a.parquet"])


def test_a_date_beyond_those_of_python_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "runs.parquet"
    pq.write_table(pa.table({"lr": [1e-3], "loss": [3.0], "day": pa.array([10_000_000], pa.date32())}), file)
    with pytest.raises(DataError, match=r"runs\.parquet cannot be read as \.parquet: date value out of range"):
        read_runs([file])


def test_offsets_beyond_a_text_are_refused_and_not_followed(tmp_path: Path) -> None:
    file, ends = tmp_path / "runs.arrow", b"".join(end.to_bytes(4, "little") for end in (0, 5, 10, 15))
    feather.write_feather(pa.table({"optimizer": ["adamw"] * 3}), file, compression="uncompressed")
    data = file.read_bytes()
    assert data.count(ends) == 1
    file.write_bytes(data.replace(ends, ends[:-4] + (2**30).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"runs\.arrow cannot be read as \.arrow: .*offsets"):
        read_runs([file])
