from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import BATCH, MODEL, Curve, curve, curves, die_once, train_spec

from raylr.errors import InputError
from raylr.trainables import Corpus, pretrain
from raylr.trainables.training import metrics, workers

EACH_OF_50_STEPS = {
    "steps": 50,
    "eval_at": [BATCH * step for step in range(1, 51)],
    "validation_tokens": 256,
    "probes_on": ("update_rms", "attention", "router", "activations", "changes"),
    "probe_interval": 10,
    "lr_multipliers": {"experts": 2.0, "router": 0.5, "embedding": 3.0},
    "model": {"aux_loss": 0.0},
}

SHORT = {
    "steps": 15,
    "eval_at": EACH_OF_50_STEPS["eval_at"][:15],
}  # the LR is constant after the warmup: the same start


@pytest.mark.slow
def test_two_processes_equal_one(corpus: Corpus) -> None:
    """Every loss of 15 steps (once: of 50) to 1e-5, each module at an LR of its own, by data and by expert parallelism;
    also the load-balancing loss, which AutoEP drops (one process takes it over micro-batches that are the two workers'
    shares).
    """
    balanced = EACH_OF_50_STEPS | SHORT | {"model": {"aux_loss": 0.02}, "micro_batch": 4}
    plain, with_aux, by_muon = curves(
        corpus.path, 1, EACH_OF_50_STEPS, balanced, EACH_OF_50_STEPS | SHORT | {"optimizer": "muon"}
    )
    cases: tuple[tuple[dict[str, Any], Curve], ...] = (
        ({"zero_stage": 1} | SHORT, plain[:15]),
        ({"zero_stage": 3} | SHORT, plain[:15]),
        ({"expert_parallel": 2}, plain),
        ({"expert_parallel": 2, "model": {"aux_loss": 0.02}} | SHORT, with_aux),
        ({"expert_parallel": 2, "zero_stage": 3} | SHORT, plain[:15]),
        ({"optimizer": "muon"} | SHORT, by_muon),
    )
    found = curves(corpus.path, 2, *(EACH_OF_50_STEPS | fields for fields, _ in cases))
    for (fields, want), got in zip(cases, found, strict=True):
        # Muon iterates in bf16, which makes more of the rounding of a mean over two workers.
        near = 1e-2 if "optimizer" in fields else 1e-5
        if "optimizer" not in fields:
            _assert_same_probes(want, got)
        for name, tolerance in (
            (metrics.LOSS, near),
            (metrics.TRAIN_LOSS, near),
            (metrics.GRAD_NORM, max(1e-3, 10 * near)),
        ):
            one, other = ([row[name] for row in rows] for rows in (got, want))
            assert one == pytest.approx(other, abs=tolerance), (fields, name)
    assert [row[metrics.AUX_LOSS] for row in found[3]] == pytest.approx(
        [row[metrics.AUX_LOSS] for row in with_aux], abs=1e-4
    )
    differ = [abs(one[metrics.LOSS] - other[metrics.LOSS]) for one, other in zip(plain, with_aux, strict=False)]
    assert max(differ) > 1e-4


def _assert_same_probes(one: Curve, two: Curve) -> None:
    """What probes measured in one process and in two. Routers are seen on half as many sequences in two processes."""
    for row, other in zip(one[9::10], two[9::10], strict=True):
        mine, its = row["probed"], other["probed"]
        assert {*mine} == {*its}
        routed = {key for key in mine if key.startswith(("router_", "dead"))}
        exact = {*mine} - routed
        assert {key: its[key] for key in exact} == pytest.approx({key: mine[key] for key in exact}, rel=3e-3, abs=1e-6)
        assert its["router_entropy"] == pytest.approx(mine["router_entropy"], rel=0.02)
        assert its["router_load_max"] == pytest.approx(mine["router_load_max"], rel=0.2)


@pytest.fixture(scope="module")
def cluster(ray_address: str) -> Iterator[None]:
    """The shared cluster, whose workers see soon that one of them has died."""
    import ray

    environment = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2", "RAY_ADDRESS": ray_address}
    ray.init(ray_address, logging_level="error", log_to_driver=False, runtime_env={"env_vars": environment})
    yield
    ray.shutdown()


def tune_curves(cases: dict[str, dict[str, Any]], storage: Path) -> dict[str, Curve]:
    """The rows that a scheduler receives of one trial for each config, by their names.

    Whatever reports checkpoints is paused once, at its second report; of what "killed" is in the name of, a process
    dies once, amid the backward of its fifth step.
    """
    from ray import tune
    from ray.tune.schedulers import FIFOScheduler, TrialScheduler

    received: dict[str, Curve] = {name: [] for name in cases}

    class Pause(FIFOScheduler):
        def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
            received[trial.config["case"]].append(result)
            mark = storage / f"paused-{trial.trial_id}"
            kept = result.get("checkpoint_dir_name") or result.get("checkpoint_path")
            if kept and result[metrics.TOKENS] == 6 * BATCH and not mark.exists():
                mark.touch()
                return str(TrialScheduler.PAUSE)
            return str(TrialScheduler.CONTINUE)

    def trial(choice: dict[str, str]) -> None:
        name, mark = choice["case"], storage / f"killed-{choice['case']}"
        config = cases[name]
        if config["train"].get("workers", 1) > 1:
            work = workers.work

            def mortal(config: dict[str, Any]) -> None:
                import ray.train

                if ray.train.get_context().get_world_rank() == 1:
                    die_once(mark, 5)
                work(config)

            workers.work = mortal
        elif "killed" in name:
            die_once(mark, 5)
        pretrain(config)

    storage.mkdir()
    several = any(config["train"].get("workers", 1) > 1 for config in cases.values())
    tuner = tune.Tuner(
        tune.with_resources(trial, {"scorer": 0.1} if several else {"CPU": 0.5}),  # the CPUs are the workers'
        param_space={"case": tune.grid_search(list(cases))},
        tune_config=tune.TuneConfig(metric=metrics.LOSS, mode="min", scheduler=Pause()),
        run_config=tune.RunConfig(
            name="t", storage_path=str(storage), verbose=0, failure_config=tune.FailureConfig(max_failures=1)
        ),
    )
    results = list(tuner.fit())
    assert [result.error for result in results] == [None] * len(cases)
    assert {p.name for p in storage.glob("killed-*")} == {f"killed-{name}" for name in cases if "killed" in name}
    return {name: curve(rows) for name, rows in received.items()}


def config(corpus: Corpus, **fields: Any) -> dict[str, Any]:
    """The config of a trial that is `run(corpus.path)`; `fields` are of `TrainSpec`."""
    return {
        "lr": 3e-3,
        "model": MODEL.model_dump(),
        "train": train_spec(**fields).model_dump(exclude_none=True),
        "corpus": str(corpus.path),
        "tokens": 12 * BATCH,
        "eval_at": [BATCH * step for step in (3, 6, 9, 12)],
    }


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_paused_and_a_killed_trial_have_the_undisturbed_curve(corpus: Corpus, tmp_path: Path) -> None:
    found = tune_curves(
        {
            "paused and killed": config(corpus),
            "killed, with its own folder": config(corpus) | {"run_dir": str(tmp_path / "run")},
        },
        tmp_path / "tune",
    )
    (want,) = curves(corpus.path, 1, {})
    assert len(list((tmp_path / "tune").glob("paused-*"))) == 1
    assert found["paused and killed"] == want
    assert found["killed, with its own folder"] == [want[0], *want]


@pytest.mark.faults
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_trial_of_two_workers_paused_and_killed_has_the_undisturbed_curve(corpus: Corpus, tmp_path: Path) -> None:
    case = config(corpus, workers=2) | {"run_dir": str(tmp_path / "run")}
    found = tune_curves({"killed": case}, tmp_path / "tune")
    assert len(list((tmp_path / "tune").glob("paused-*"))) == 1
    assert [found["killed"]] == curves(corpus.path, 2, {})


def test_several_workers_need_a_run_folder(corpus: Corpus) -> None:
    with pytest.raises(InputError, match="needs run_dir"):
        pretrain(config(corpus, workers=2))
