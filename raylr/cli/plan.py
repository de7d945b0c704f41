"""`raylr plan`: what a study costs, before it is paid for and after."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from raylr.analysis.units import format_count
from raylr.cli.console import make_console, say
from raylr.cli.places import Use

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.plan import Amount, Plan
    from raylr.study import Study


def plan(
    spec: Annotated[Path | None, Use.READ] = None,
    *,
    gpu: str = "H100",
    mfu: float = 0.4,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Estimate what a study will cost before anything is trained; for a study that was begun, also what it has spent.

    The search decides when it ends. Its cost is that of searches on simulated losses: an interval that holds nine of
    ten. Neither GPUs nor the corpus need to be there.

    Parameters
    ----------
    spec
        The study's spec (YAML), or a study's folder or its address. Without one: the quickstart.
    gpu
        The GPU that the hours are for: A100, H100, H200, B200 or MI300X.
    mfu
        Share of the GPU's peak that the training reaches.
    as_json
        Print JSON.
    """
    from raylr.plan import gpu_hours, plan_study
    from raylr.quickstart import quickstart_spec
    from raylr.spec import load_spec
    from raylr.spec.files import missing_files
    from raylr.studies import open_study

    study = open_study(spec) if spec and spec.is_dir() else None
    wanted = study.spec if study else load_spec(spec, check_files=False) if spec else quickstart_spec()
    gpu_hours(1.0, gpu=gpu, mfu=mfu)  # refuses what it cannot count with, before the searches run
    wanted.check_models()
    found, console = plan_study(wanted), make_console()
    if as_json:
        more = {"gpu": gpu, "mfu": mfu, "missing_files": missing_files(wanted)}
        print(json.dumps(dataclasses.asdict(found) | more, indent=1))
        return
    show_plan(found, gpu, mfu, console)
    for warning in wanted.schedule_warnings():
        say(console, warning)
    for sentence in missing_files(wanted):
        say(console, f"The plan needs no files, the study does: {sentence}.")
    if study is not None:
        _show_spent(study, found, console)


def show_plan(found: Plan, gpu: str, mfu: float, console: Console) -> None:
    """Print a plan as a table, a line for each size, and what it is compared with.

    Args:
        found: The plan.
        gpu: Name of the GPU whose hours are shown.
        mfu: Fraction of its peak that training reaches.
        console: Where it is printed.
    """
    from rich.table import Table
    from rich.text import Text

    from raylr.plan import gpu_hours

    def hours(flops: float) -> str:
        return f"{gpu_hours(flops, gpu=gpu, mfu=mfu):.3g}"

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("", "params", "runs", "tokens", "FLOPs", f"{gpu} hours"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for size in found.sizes:
        flops = size.tokens.middle * size.flops_per_token
        table.add_row(
            Text(size.name), format_count(size.params), _between(size.runs), _between(size.tokens, format_count),
            f"{flops:.2g}", hours(flops),
        )  # fmt: skip
    search = found.flops.middle
    table.add_row(
        "search", "", _between(found.runs), _between(found.tokens, format_count), f"{search:.2g}", hours(search)
    )
    if found.check_tokens:
        table.add_row(
            "check", "", f"{found.check_runs}", format_count(found.check_tokens), f"{found.check_flops:.2g}",
            hours(found.check_flops),
        )  # fmt: skip
    table.add_row(
        "full grid", "", f"{found.grid_runs}", format_count(found.grid_tokens), f"{found.grid_flops:.2g}",
        hours(found.grid_flops),
    )  # fmt: skip
    for target in found.targets:
        table.add_row(
            Text(target.name), format_count(target.params), "1", format_count(target.tokens), f"{target.flops:.2g}",
            hours(target.flops),
        )  # fmt: skip
    console.print(table)
    share = found.tokens.middle / found.grid_tokens
    sentence = f"The search takes about {share:.0%} of the tokens of the full grid"
    if found.target_flops > 0:
        sentence += f" and {search / found.target_flops:.2g} times the FLOPs of the target's run"
    say(console, f"{sentence}. Hours are of one {gpu} at {mfu:.0%} of its peak.")
    if (one := found.decayed) is not None:
        say(
            console,
            f"An LR takes {format_count(one.tokens)} tokens at most, its trunk and its branches: "
            f"{one.tokens / one.stable:.2f} times a whole run at a constant LR, and {one.tokens / one.whole:.0%} of a "
            "decayed run for each budget.",
        )


def _between(amount: Amount, shown: object = None) -> str:
    write = shown if callable(shown) else lambda value: f"{value:.0f}"
    low, high = write(amount.low), write(amount.high)
    return str(low) if low == high else f"{low}–{high}"


def _show_spent(study: Study, found: Plan, console: Console) -> None:
    from raylr.analysis.cost import cost_of
    from raylr.spec.modules import module_grid

    table = study.evaluations.read()
    if table.num_rows == 0:
        say(console, "Nothing was measured yet.")
        return
    spec = study.spec
    grid = spec.transfer.grid if spec.transfer else spec.lr.grid + module_grid(spec)
    sizes = [setting.size for setting in spec.settings()]
    cost = cost_of(table, sizes=sizes, grid=grid, budget=max(spec.token_budgets))
    share = cost.search_tokens / found.tokens.middle
    say(
        console,
        f"Spent so far: {format_count(cost.search_tokens)} tokens by the search ({share:.0%} of the plan), "
        f"{format_count(cost.check_tokens)} by the check.",
    )
