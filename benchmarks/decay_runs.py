"""Real decays at every LR of a small model: a trunk a LR, branches of several decays from its kept checkpoints, and
averages of the trunk's last checkpoints.

    python benchmarks/decay_runs.py --corpus DIR --out runs/decays     # trains; goes on where it was
    python benchmarks/decay_runs.py --out runs/decays --json decays.json   # judges predictions on what is there

What the annealing law says from all trunks and two branches of the smaller budget is compared with every branch of the
larger one, and the predicted optimum with that of the measured decayed losses. Averages, which cost no training, are
compared with the decays as they are: with their losses, their order of the LRs and their optimum."""

import argparse
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from raylr.analysis import Decay, decayed_optimum, fit_annealing, fit_optimum
from raylr.trainables import ModelSpec, TrainSpec, averaged_loss, train
from raylr.trainables.training.schedule import branch_tokens

LRS = (1.5e-3, 3e-3, 4.2e-3, 6e-3, 8.5e-3, 1.2e-2)
TOKENS = (409600, 819200)
DECAYS = (("linear", 0.2), ("linear", 0.6), ("sqrt", 0.2))
STABLE = TrainSpec(
    seq_len=128, batch_tokens=1024, warmup_steps=20, validation_tokens=32768, repeat_data=True, checkpoint_seconds=1e9
)
MODEL: dict[str, Any] = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 16, "experts": 8,
                         "top_k": 2, "expert_size": 32}  # fmt: skip
REPORTS = 64
"""Validations of a trunk, and checkpoints that its averages are made of."""
MEANS, MEMORIES = (0.1, 0.2, 0.4, 0.6), (0.05, 0.1)
"""Last shares of the tokens whose checkpoints have the same weight, and shares in which those of an EMA lose a factor
e."""
SIGMAS = 1.6449


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="a tokenised corpus; without one nothing is trained")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--lr", type=float, action="append", help="train these alone (default: all)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.corpus:
        for lr in args.lr or LRS:
            measure(lr, args.corpus, args.out)
    if args.lr:
        return
    out = judge(pd.concat([pd.read_csv(path) for path in sorted(args.out.glob("lr-*.csv"))]))
    if args.json:
        args.json.write_text(json.dumps(out, indent=2))


def measure(lr: float, corpus: Path, out: Path) -> None:
    """Train the trunk of an LR and all its branches; their rows go into one file, written whole."""
    file, folder = out / f"lr-{lr:g}.csv", out / f"trunk-{lr:g}"
    if file.exists():
        return
    from raylr.trainables.data.corpus import Corpus

    model = ModelSpec(**MODEL, vocab_size=Corpus.open(corpus).vocab_size)
    branches = [
        (tokens, STABLE.model_copy(update={"schedule": "wsd", "decay_shape": shape, "decay_fraction": fraction}))
        for tokens in TOKENS
        for shape, fraction in DECAYS
    ]
    points = sorted({branch_tokens(one, tokens) for tokens, one in branches})
    last = max(TOKENS)
    even = [STABLE.round_tokens(last * (i + 1) / REPORTS) for i in range(REPORTS)]
    every = sorted({*points, *TOKENS, *even})
    shared: dict[str, Any] = {"lr": lr, "model": model, "corpus": corpus, "threads": 1}
    rows = [
        row | {"decay": "", "total": last}
        for row in train(train=STABLE, tokens=last, eval_at=every, run_dir=folder / "own", keep_dir=folder / "kept",
                         keep_at=every, **shared)
    ]  # fmt: skip
    for tokens, one in branches:
        leaves = branch_tokens(one, tokens)
        at = [*(point for point in even if leaves < point < tokens), tokens]
        found = train(train=one, tokens=tokens, eval_at=at, trunk_dir=folder / "kept", **shared)
        rows += [row | {"decay": f"{one.decay_shape} {one.decay_fraction:g}", "total": tokens} for row in found]
    rows += averages(folder / "kept", lr, corpus)
    columns = ["lr", "decay", "total", "tokens", "current_lr", "loss", "train_seconds"]
    whole = pd.DataFrame(rows)[[*columns, "trunk_tokens"]]
    whole.to_csv(file.with_suffix(".part"), index=False)
    file.with_suffix(".part").rename(file)


def averages(kept: Path, lr: float, corpus: Path) -> list[dict[str, Any]]:
    """Return a row for each average of the checkpoints of a trunk, with its validation loss."""
    found = {int(path.name.split("-")[1]) * STABLE.batch_tokens: path for path in sorted(kept.glob("step-*"))}
    rows = []
    for total in TOKENS:
        every = np.array([tokens for tokens in sorted(found) if tokens <= total])
        shares = {f"mean {share:g}": (every > (1 - share) * total) * 1.0 for share in MEANS}
        shares |= {f"ema {memory:g}": np.exp((every - total) / (memory * total)) for memory in MEMORIES}
        for name, share in shares.items():
            used = share > 1e-6 * share.sum()
            paths = [found[tokens] for tokens in every[used].tolist()]
            loss = averaged_loss(paths, corpus, weights=share[used].tolist(), threads=1)
            rows.append(
                {"lr": lr, "decay": name, "total": total, "tokens": total, "current_lr": lr, "train_seconds": 0.0,
                 "loss": loss, "trunk_tokens": total}
            )  # fmt: skip
    return rows


def judge(frame: pd.DataFrame) -> dict[str, float]:
    """Print measured optima, and what predictions from two branches of the smaller budget give for the larger one."""
    frame = frame.fillna({"decay": ""})
    trunks, ends = frame[frame["decay"] == ""], frame.groupby(["decay", "total", "lr"])["loss"].last()
    small, large = TOKENS
    lrs = sorted(set(frame["lr"]))
    stable = {tokens: trunks[trunks["tokens"] == tokens].set_index("lr")["loss"] for tokens in TOKENS}
    for tokens in TOKENS:
        _measured(f"stable, {tokens}", stable[tokens])
        for shape, fraction in DECAYS:
            _measured(f"{shape} {fraction:g}, {tokens}", ends[f"{shape} {fraction:g}", tokens])
    out = _compared(ends)
    print(f"\npredicted at {large} tokens from the trunks and two branches of {small} tokens, every pair of LRs")
    print(f"{'decay':12s} {'pairs':>5s} {'rms error':>9s} {'z':>5s} {'inside':>6s} {'ln lr':>6s} {'regret':>8s} "
          f"{'inside':>6s} {'half width':>10s} {'order':>6s}")  # fmt: skip
    for shape, fraction in DECAYS:
        name = f"{shape} {fraction:g}"
        truth = ends[name, large]
        best, found = fit_optimum(lrs, truth.loc[lrs]), []
        for pair in itertools.combinations(lrs, 2):
            given = trunks[["lr", "tokens", "current_lr", "loss"]].assign(run=[f"{lr:g}" for lr in trunks["lr"]])
            for lr in pair:
                part = frame[(frame["decay"] == name) & (frame["total"] == small) & (frame["lr"] == lr)]
                whole = pd.concat([trunks[(trunks["lr"] == lr) & (trunks["tokens"] <= part["trunk_tokens"].iloc[0])],
                                   part])  # fmt: skip
                before = whole.index.size - part.index.size
                whole = whole[["lr", "tokens", "current_lr", "loss"]].assign(run=f"{lr:g} decayed")
                whole.iloc[:before, 3] = math.nan  # the trunk has these already
                given = pd.concat([given, whole])
            fit = fit_annealing(given["tokens"], given["current_lr"], given["loss"], run=given["run"])
            one = decayed_optimum(fit, Decay(shape=shape, fraction=fraction), large, lrs)
            low, high = one.interval()
            error = one.losses - truth.loc[lrs].to_numpy()
            regret = 100 * (float(best.predict(one.lr)[0]) - best.loss) / best.loss
            order = np.corrcoef(np.argsort(np.argsort(one.losses)), np.argsort(np.argsort(truth.loc[lrs])))[0, 1]
            found.append((error, error / one.stderr, math.log(one.lr / best.lr), regret, low <= best.lr <= high,
                          0.5 * math.log(high / low) if 0 < low < high < math.inf else math.inf, order))  # fmt: skip
        error, z = np.array([one[0] for one in found]), np.array([one[1] for one in found])
        rms = float(np.sqrt(np.mean([one[2] ** 2 for one in found])))
        print(f"{name:12s} {len(found):5d} {np.sqrt(np.mean(error**2)):9.4f} {np.sqrt(np.mean(z**2)):5.2f} "
              f"{np.mean(np.abs(z) < SIGMAS):6.0%} {rms:6.2f} {np.mean([one[3] for one in found]):7.3f}% "
              f"{np.mean([one[4] for one in found]):6.0%} {np.median([one[5] for one in found]):10.2f} "
              f"{np.mean([one[6] for one in found]):6.2f}")  # fmt: skip
        key = f"decays_{name.replace(' ', '_')}"
        out |= {f"{key}_error": rms, f"{key}_inside": float(np.mean([one[4] for one in found]))}
    return out


def _compared(ends: "pd.Series[float]") -> dict[str, float]:
    """Print what averages say beside the decays that they stand for, at each number of tokens."""
    out: dict[str, float] = {}
    averages = [f"mean {share:g}" for share in MEANS] + [f"ema {memory:g}" for memory in MEMORIES]
    print(
        "\naverages of a trunk's checkpoints, and the decays: difference of the losses, ln of the ratio of the optima"
    )
    print(f"{'average':10s} {'tokens':>7s} {'decay':12s} {'mean':>8s} {'sd over LRs':>11s} {'order':>6s} {'ln lr':>6s}")
    for total, name, (shape, fraction) in itertools.product(TOKENS, averages, DECAYS):
        if (name, total) not in ends.index:
            continue
        one, real = ends[name, total], ends[f"{shape} {fraction:g}", total]
        found, truth = fit_optimum(one.index, one.to_numpy()), fit_optimum(real.index, real.to_numpy())
        order = np.corrcoef(one.rank(), real.rank())[0, 1]
        print(f"{name:10s} {total:7d} {shape + f' {fraction:g}':12s} {(one - real).mean():+8.4f} "
              f"{(one - real).std():11.4f} {order:6.2f} {math.log(found.lr / truth.lr):+6.2f}")  # fmt: skip
        out[f"{name} {total} {shape} {fraction:g}".replace(" ", "_")] = float((one - real).mean())
    return out


def _measured(name: str, losses: "pd.Series[float]") -> None:
    fit = fit_optimum(losses.index.to_numpy(), losses.to_numpy())
    low, high = fit.interval(0.9)
    shown = " ".join(f"{loss:.4f}" for loss in losses)
    print(f"{name:22s} {shown}   optimum {fit.lr:.2e} ({low:.2e} to {high:.2e}), {fit.status}")


if __name__ == "__main__":
    main()
