"""`raylr coord-check`: whether a parametrization keeps activations at one size over width, depth and tokens."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from raylr.cli.console import ConsoleListener, make_console, say
from raylr.cli.places import Use
from raylr.errors import InputError, SpecError
from raylr.events import Counted

if TYPE_CHECKING:
    from rich.console import Console

    from raylr.analysis.coordinates import CoordinateCheck, Judged
    from raylr.trainables.models.architecture import Architecture
    from raylr.trainables.models.parametrization import Parametrization

RULES = ("standard", "mup", "completed_p")
_AXES = ("width", "depth", "tokens")
_SIGNS = {"as expected": " ", "grows": "↑", "vanishes": "↓", "cannot tell": "?"}

_LEFT, _COLUMN = 53, 13
"""Characters of the table's first columns, and of each variant's: `completed_p,`, or a slope with its interval."""


def coord_check(
    spec: str | None = None,
    *,
    model: str | None = None,
    roles: Path | None = None,
    rule: list[str] | None = None,
    choose: list[str] | None = None,
    alpha: float = 1.0,
    axis: list[Literal["width", "depth", "tokens"]] | None = None,
    widths: str = "1,2,4,8",
    depths: str = "1,2,4",
    tokens: str = "1,2,4,8",
    heads: Literal["scaled", "fixed"] = "scaled",
    qk_norm: Literal["both", "as-is"] = "both",
    initialised: Literal["constant", "fan_in", "keep"] = "constant",
    lr: float | None = None,
    steps: str = "1,4,16",
    seeds: int = 4,
    batch: str = "4x32",
    corpus: Path | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"]), Use.READ] = Path("runs/coord-check"),
    workers: int | None = None,
    as_json: Annotated[bool, Parameter(name="--json")] = False,
) -> None:
    """Check that activations of wider and deeper models, and their changes in the first steps, keep their size.

    Small models are trained for a few steps. What was measured is kept in the folder of --out; a check that was stopped
    goes on there.

    Parameters
    ----------
    spec
        A study's spec (FILE, or FILE:SIZE; its smallest size otherwise) or a model's file, as for `raylr transfer`;
        without it, the quickstart's smallest model. It is the base: the smallest model of the check.
    model
        A function of your own in place of a spec, package.module:function, called with width, depth (multiples of the
        base's) and seed. It returns an nn.Module from token ids to logits, or a
        raylr.trainables.coordinates.subject.Subject.
    roles
        YAML file with the roles of the tensors of --model: patterns, a list of regex and role, and layer.
    rule
        standard, mup, completep, completed_p or a YAML file with an own table; may be given several times. Without it:
        standard, mup and completed_p.
    choose
        An option at a disputed point, as router=output, for all rules that have it.
    alpha
        Exponent of the residual multiplier of completep and completed_p.
    axis
        width, depth or tokens; may be given several times. Without it: all; tokens only for rules that have them.
    widths
        Multiples of the base's width, with 1 among them.
    depths
        Multiples of the base's number of layers.
    tokens
        Multiples of the base's training tokens, for the rule; every network trains the same few steps.
    heads
        Whether the number of attention heads grows with the width. The size of a head is fixed.
    qk_norm
        Check a model of raylr's own with and without QK norm, or as it is.
    initialised
        How --model draws its weights: as for `parametrize`.
    lr
        LR of the base. Without it: the lower end of the study's LR range, otherwise 1e-3. Near the optimum the changes
        are too large to be compared.
    steps
        Steps after which changes are measured.
    seeds
        Number of seeds.
    batch
        Sequences x tokens of the one batch that all steps use.
    corpus
        Folder of a tokenised corpus for that batch; without it an artificial language.
    out
        The folder for measurements, check.json, the page coord-check.html and its figures.
    workers
        Processes; without it, one for each core, at most 4.
    as_json
        Print JSON, with every slope and measurement.
    """
    from raylr.analysis.coordinates import LEAST_SCALES
    from raylr.coordinates import StoredResults, as_json_of, write_results
    from raylr.trainables.coordinates.check import CheckSettings, coordinate_check
    from raylr.trainables.coordinates.processes import worker_processes

    console = make_console(stderr=as_json)
    axes: list[Any] = list(dict.fromkeys(axis or _AXES))
    scales = {"width": _numbers("--widths", widths), "depth": _numbers("--depths", depths),
              "tokens": _numbers("--tokens", tokens)}  # fmt: skip
    for scale in axes:
        if len(set(scales[scale])) < LEAST_SCALES or min(scales[scale]) <= 0:
            option = "--tokens" if scale == "tokens" else f"--{scale}s"
            raise InputError(f"{option}: at least {LEAST_SCALES} different multiples above 0, such as 1,2,4")
    bases, base_lr = _bases(spec, model, qk_norm)
    sequences, seq_len = _batch(batch)
    settings = CheckSettings(
        lr=base_lr if lr is None else lr, steps=tuple(int(step) for step in _numbers("--steps", steps, whole=True)),
        seeds=tuple(range(seeds)), sequences=sequences, seq_len=seq_len, initialised=initialised,
    )  # fmt: skip
    architecture = _architecture(roles, model)
    rules = _rules(rule or list(RULES), choose or [], alpha)
    jobs = [
        (f"{table.name}{suffix}", base, table, along)
        for along in axes
        for suffix, base in bases.items()
        for table in rules
        if along != "tokens" or axis or any(term.axis == "tokens" for term in table.terms)
    ]
    results = StoredResults(out)
    known = len(results)
    checks: list[CoordinateCheck] = []
    with ConsoleListener(console) as listener, worker_processes(workers) as executor:
        listener.stage(
            f"{len(jobs)} checks; what is measured is kept in {out}" + (f" ({known} runs there)" if known else "")
        )
        for name, base, table, along in jobs:
            checks.append(
                coordinate_check(
                    base, rule=table, axis=along, scales=scales[along], heads=heads, settings=settings,
                    architecture=architecture, corpus=corpus, name=name, results=results, executor=executor,
                    progress=partial(_progress, listener, f"runs of {name} over {along}"),
                )
            )  # fmt: skip
    requested = {"spec": spec, "model": model, "heads": heads, "scales": {key: list(scales[key]) for key in axes},
             "lr": settings.lr, "steps": list(settings.steps), "seeds": seeds, "batch": [sequences, seq_len],
             "corpus": str(corpus) if corpus else None}  # fmt: skip
    write_results(out, checks, requested)
    if as_json:
        print(json.dumps(as_json_of(checks, requested), indent=1, ensure_ascii=False))
        return
    show(checks, console, out)


def _progress(listener: ConsoleListener, what: str, done: int, total: int) -> None:
    listener.counted(Counted(what=what, done=done, total=total))


def _numbers(name: str, text: str, *, whole: bool = False) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or (whole and any(value != int(value) for value in found)):
        raise InputError(f"{name} {text}: write {'whole ' if whole else ''}numbers with commas, such as 1,2,4,8")
    return found


def _batch(text: str) -> tuple[int, int]:
    first, sign, second = text.partition("x")
    if not sign or not first.isdigit() or not second.isdigit():
        raise InputError(f"--batch {text}: write sequences x tokens, such as 4x32")
    return int(first), int(second)


def _bases(spec: str | None, model: str | None, qk_norm: str) -> tuple[dict[str, Any], float]:
    """Return what is checked, by what its name gets as an ending, and the LR to check it at."""
    from raylr.trainables.models.loading import load_function
    from raylr.trainables.models.spec import ModelSpec
    from raylr.transfer import quickstart_model, read_model

    if model is not None:
        if spec is not None:
            raise InputError(f"both a spec ({spec}) and --model {model} were given; give one")
        if ":" not in model:
            raise InputError(f"--model {model}: write package.module:function")
        return {"": load_function("--model", model, Path.cwd())}, 1e-3
    file = read_model(spec, without_size="smallest") if spec is not None else quickstart_model()
    lr = file.lrs[0] if file.lrs else 1e-3
    if not isinstance(file.model, ModelSpec):
        return {"": file.model}, lr
    norms = [True, False] if qk_norm == "both" else [file.model.qk_norm]
    return {
        (", QK norm" if norm else ", no QK norm"): file.model.model_copy(update={"qk_norm": norm}) for norm in norms
    }, lr


def _architecture(roles: Path | None, model: str | None) -> Architecture | None:
    from raylr.spec.yamlfile import read_yaml
    from raylr.trainables.models.architecture import Architecture

    if roles is None:
        return None
    if model is None:
        raise InputError(f"--roles {roles} belongs to --model; a spec's tensors have their roles")
    try:
        return Architecture.from_dict(read_yaml(roles))
    except SpecError as error:
        raise SpecError(f"{roles}: {error}") from None


def _rules(names: list[str], choose: list[str], alpha: float) -> list[Parametrization]:
    """Return the rules, each with the choices that it has."""
    from raylr.cli.transfer import parse_choices
    from raylr.trainables.models.parametrization import CHOICES, parametrization
    from raylr.transfer import read_rule

    choices = parse_choices(choose)
    found = []
    for name in dict.fromkeys(names):
        known = parametrization(name).choices if name in ("standard", "mup", "completep", "completed_p") else {}
        mine = {key: option for key, option in choices.items() if key in known or key not in CHOICES}
        found.append(read_rule(name, mine, alpha if name in ("completep", "completed_p") else 1.0))
    return found


def show(checks: list[CoordinateCheck], console: Console, out: Path) -> None:
    """Print the verdicts, then a table of slopes for each axis."""
    from raylr.report.coordinates import PAGE, sentence
    from raylr.trainables.coordinates.expected import INVISIBLE

    for check in checks:
        say(console, sentence(check), heading="Verdict")
    for axis in dict.fromkeys(check.axis for check in checks):
        mine = [check for check in checks if check.axis == axis]
        beside = max((console.width - _LEFT) // _COLUMN, 1)  # a table wider than the console would cut its numbers
        for i in range(0, len(mine), beside):
            console.print()
            _table(mine[i : i + beside], console)
    console.print()
    say(console, "slope of ln std over ln of the scale ± half of its 90 % interval; of steps after 0, the one furthest "
        "from what is expected. ↑ grows, ↓ vanishes, ? cannot tell.")  # fmt: skip
    say(console, f"{INVISIBLE}.", heading="Not seen")
    say(
        console,
        f"{out}/{PAGE} shows them, {out}/check.json has every step, {out}/figures the pictures",
        heading="Written",
    )


def _table(checks: list[CoordinateCheck], console: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from raylr.analysis.coordinates import OBSERVABLES

    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in (f"over {checks[0].axis}", "layer", "of", "expected"):
        table.add_column(name, no_wrap=True)
    for check in checks:
        table.add_column(Text(check.variant.replace(", ", ",\n")), justify="right", min_width=_COLUMN - 1)
    for key in dict.fromkeys((row.observable, row.layer, bool(row.step)) for check in checks for row in check.rows):
        cells, first = [], None
        for check in checks:
            mine = [row for row in check.rows if (row.observable, row.layer, bool(row.step)) == key]
            row = max(mine, key=_notable, default=None)
            first = row or first  # what is expected over depth depends on the rule: the last one's is shown
            cells.append(Text("" if row is None else f"{_cell(row)}{_SIGNS[row.verdict.value]}"))
        assert first is not None
        name, of = OBSERVABLES.get(key[0], key[0]), "x_t − x_0" if key[2] else "x_0"
        table.add_row(Text(name), Text(key[1]), of, Text(str(first.expected)), *cells)
    console.print(table)


def _notable(row: Judged) -> tuple[bool, bool, float]:
    deviates = row.verdict.value in ("grows", "vanishes")
    middle = (row.expected.low + row.expected.high) / 2
    return deviates, row.verdict.value == "cannot tell", abs(row.found.slope - middle) if not row.found.problem else 9.0


def _cell(row: Judged) -> str:
    if row.found.problem:
        return row.found.problem.split()[0]
    return f"{row.found.slope:+.2f}±{(row.found.high - row.found.low) / 2:.2f}".replace("±0.", "±.")
