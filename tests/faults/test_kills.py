"""SIGKILL at random moments, again and again: property of every moment. The study runs without Ray, in processes that
are forked from one that has everything imported, and writes after every report, so that kills fall into writes."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty_study import DirectExecutor, assert_same, rows_of, study_in

from raylr.store.check import check_study
from raylr.study import FittingStudy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
KILLS = 20


def run(folder: Path, log: Path, merge_at: int, begun: Any) -> None:
    """Run or continue the study; note each loss that is measured before it is reported."""
    from raylr.store import table

    table.FLUSH_SECONDS, table.MERGE_AT = 0.0, merge_at

    def before(job: Any, tokens: int) -> None:
        with log.open("a") as file:
            file.write(json.dumps([job.run.name, tokens]) + "\n")

    printed = os.open(log.parent / "printed", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    begun.set()
    study_in(folder, DirectExecutor(before)).run()


@pytest.mark.parametrize("merge_at", [128, 3])
def test_kills_at_random_moments_lose_and_repeat_nothing(
    merge_at: int, tmp_path: Path, undisturbed: FittingStudy, record: Callable[..., None]
) -> None:
    """Whatever is on disk is never measured again, the folder is whole after each kill, and the law is the same."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["test_kills", "faulty_study", "raylr.study", "raylr.stages", "scipy.optimize"])
    rng, folder = random.Random(merge_at), tmp_path / "study"
    longest = kills = starts = 0.0
    again = 0
    while True:
        log, begun = tmp_path / f"{int(starts)}.log", context.Event()
        known = {(row["trial"], row["tokens"]) for row in rows_in(folder)}
        process = context.Process(target=run, args=(folder, log, merge_at, begun))
        process.start()
        assert begun.wait(120)
        since = time.monotonic()
        process.join(rng.uniform(0, longest or 0.5) if kills < KILLS else None)
        starts += 1
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
        else:
            assert process.exitcode == 0
        longest = max(longest, min(time.monotonic() - since, 2.0))
        measured = [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []
        assert len(set(measured)) == len(measured)
        again += len(known & set(measured))
        assert not again, "something on disk was measured again"
        if (folder / "spec.yaml").exists():
            assert check_study(folder).whole, check_study(folder).parts
        if process.exitcode == 0:
            if kills >= KILLS:
                break
            folder.rename(tmp_path / f"finished-{int(starts)}")  # it was too quick: once more from its beginning
    study, message = FittingStudy.open(folder), (tmp_path / "printed").read_text() or "nothing"
    record(
        f"{KILLS} kills at random moments" + (", amid merges" if merge_at < 128 else ""),
        how="SIGKILL to a process that runs a study and writes every loss at once", message=message,
        survived=f"{len(rows_of(study))} losses; of those on disk at its {starts:.0f} starts {again} measured again",
        same_law=assert_same(study, undisturbed),
    )  # fmt: skip


def rows_in(folder: Path) -> list[dict[str, Any]]:
    if not (folder / "spec.yaml").exists() or not (folder / "study.json").exists():
        return []
    return list(FittingStudy.open(folder).evaluations.read(columns=["trial", "tokens"]).to_pylist())
