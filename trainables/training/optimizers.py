"""The optimizer of a run: AdamW for all tensors, or Muon for the hidden matrices and AdamW for the rest.

Muon replaces the gradient's running mean by the nearest matrix with orthonormal rows or columns, so it is for tensors
that map one space to another. Embeddings, unembeddings, routers, norms and biases are left to AdamW, as Muon's author
has it (kellerjordan.github.io/posts/muon). Each expert of a fused tensor is a matrix of its own, and so are its gate
and its up projection: orthonormalised together they would be another optimizer than for the same weights stored apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from raylr.errors import SpecError
from raylr.trainables.models.hf import transposed_names
from raylr.trainables.models.roles import HALVES
from raylr.trainables.training.groups import MUON

if TYPE_CHECKING:
    from raylr.trainables.training.spec import OptimizerSpec, TrainSpec


def make_optimizer(model: nn.Module, train: TrainSpec, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Make the optimizer of a run, whose LR is 0 until the loop sets it.

    Args:
        model: The network, after DeepSpeed has replaced its expert layers, if it does.
        train: The run.
        groups: Its parameters as `groups.parameter_groups` or `groups.parametrized_groups` gives them.

    Returns:
        The optimizer, with these groups.

    Raises:
        SpecError: If this torch has no Muon, or the model no matrix for it.
    """
    if train.optimizer.name == "adamw":
        return AdamW(groups, lr=0.0, betas=train.betas, eps=train.eps, fused=True)
    if not hasattr(torch.optim, "Muon"):
        raise SpecError(
            f"optimizer: muon needs torch 2.9 or newer, which has torch.optim.Muon; this is {torch.__version__}"
        )
    names: dict[Tensor, str] = {param: name for name, param in model.named_parameters()}
    return MuonWithAdamW(groups, names, train, transposed_names(model))


class AdamW(torch.optim.AdamW):
    """`torch.optim.AdamW` without its decorators for torch's compiler.

    They do nothing outside of compiled code, but import the compiler: 958 modules, 1.9 s of processor time in each
    process that trains. Each method here is the one that they wrap; `step` has their `no_grad`.
    """

    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


def matrices(name: str, param: Tensor, *, transposed: bool = False) -> Iterator[Tensor]:
    """Yield the matrices [out, in] that a tensor holds, as views of it.

    Args:
        name: Its name, which says whether a tensor holds gate and up projections.
        param: A matrix, or a stack of matrices.
        transposed: Whether they are stored as [in, out]. Gate and up projections are then interleaved, as gpt-oss has
            them, and stay one matrix.
    """
    halves = name.endswith(HALVES) and param.shape[-2] % 2 == 0 and not transposed
    for matrix in param.unbind(0) if param.dim() == 3 else (param,):
        yield from matrix.chunk(2) if halves else (matrix.T if transposed else matrix,)


def spectral_multiplier(rows: int, columns: int) -> float:
    """Return the factor that turns torch's LR adjustment "original", √max(1, rows/columns), into √(rows/columns)."""
    return float(min(1.0, rows / columns) ** 0.5)


class MuonWithAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` for groups that are marked for it, `torch.optim.AdamW` for the others, as one optimizer.

    Args:
        groups: Groups of `groups.parameter_groups`; those of Muon have "muon" as `optimizer`.
        names: Parameter → its name.
        train: The run.
        transposed: Names of matrices that are stored as [in, out].

    Raises:
        SpecError: If no group is marked for Muon.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        names: Mapping[Tensor, str],
        train: TrainSpec,
        transposed: Collection[str] = (),
    ) -> None:
        super().__init__(groups, {"lr": 0.0})
        if not any(group.get("optimizer") == MUON for group in self.param_groups):
            raise SpecError("optimizer: muon is for hidden matrices, and this model has none")
        self._names, self._transposed = names, transposed
        self._parts: list[tuple[dict[str, Any], float, dict[str, Any]]] = []
        """Group here, factor on its LR, group of Muon; the latter's parameters are views of the former's."""
        self._views: list[tuple[nn.Parameter, list[nn.Parameter]]] = []
        """Parameter → its matrices."""
        settings = train.optimizer
        for group in self.param_groups:
            if group.get("optimizer") == MUON:
                self._split(group, settings)
        adjust = "match_rms_adamw" if settings.adjust_lr == "match_rms_adamw" else "original"
        self._muon = torch.optim.Muon(
            [inner for _, _, inner in self._parts],
            lr=0.0,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            ns_steps=settings.ns_steps,
            adjust_lr_fn=adjust,
        )
        # AdamW takes these groups as they are: what the loop and DeepSpeed set in them holds for it.
        others = [group for group in self.param_groups if group.get("optimizer") != MUON]
        self.adamw = AdamW(others, lr=0.0, betas=train.betas, eps=train.eps, fused=True)

    def _split(self, group: dict[str, Any], settings: OptimizerSpec) -> None:
        """Make Muon's groups of a group here: matrices with one factor on the LR share one."""
        parts: dict[float, dict[str, Any]] = {}
        for param in group["params"]:
            views = [nn.Parameter(view) for view in self._matrices(param, param.data)]
            self._views.append((param, views))
            for view in views:
                factor = spectral_multiplier(*view.shape) if settings.adjust_lr == "spectral" else 1.0
                # torch multiplies the weight decay by the LR of the group before its own adjustment.
                part = parts.setdefault(factor, {"params": [], "weight_decay": group["weight_decay"] / factor})
                part["params"].append(view)
        self._parts += [(group, factor, part) for factor, part in parts.items()]

    def _matrices(self, param: Tensor, data: Tensor) -> Iterator[Tensor]:
        """Yield the matrices in the weights or in the gradient of a parameter."""
        name = self._names[param]
        return matrices(name, data, transposed=name in self._transposed)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # no closure's loss to return
        """Make a step with the gradients that the parameters have; `closure` is not used."""
        for group, factor, part in self._parts:
            part["lr"] = group["lr"] * factor
        for param, views in self._views:
            if param.grad is None:
                continue
            for view, grad in zip(views, self._matrices(param, param.grad), strict=True):
                view.grad = grad
        self._muon.step()
        self.adamw.step()
        for _, views in self._views:
            for view in views:
                view.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of both optimizers."""
        return {"muon": self._muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, for the same model."""
        self._muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._shared_again()

    def _shared_again(self) -> None:
        """torch gives an optimizer new groups when a state is loaded; they are put back among those here."""
        loaded = iter(self.adamw.param_groups)
        self.param_groups[:] = [
            group if group.get("optimizer") == MUON else next(loaded) for group in self.param_groups
        ]
        self._parts = [
            (group, factor, part) for (group, factor, _), part in zip(self._parts, self._muon.param_groups, strict=True)
        ]
