"""A network that a user wrote, `model: {module: package.module:function}`, behind the interface of `Qwen3MoE`.

Shape suffixes: B sequences, T positions, V vocabulary, N = B·T.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylr.errors import SpecError
from raylr.trainables.models.interface import Losses
from raylr.trainables.models.loading import load_function
from raylr.trainables.models.roles import role_of

if TYPE_CHECKING:
    from raylr.trainables.models.spec import ModuleSpec

PROBE = (2, 4)
"""Sequences and tokens of the forward pass by which a network is checked; any network takes so many."""
CAUSAL = 1e-3
"""Largest difference that a later token may make to the logits before it, as a share of their size: rounding makes
less, a network that sees later tokens more."""


def construct(spec: ModuleSpec) -> nn.Module:
    """Call the function that `spec` names.

    Raises:
        SpecError: If it does not take `vocab_size` and the args, fails, or returns no module.
        InputError: If it cannot be imported.
    """
    function = load_function("model.module", spec.module, spec.folder)
    given = {"vocab_size": spec.vocab_size, **spec.args}
    called = f"{spec.module}({', '.join(f'{name}={value!r}' for name, value in given.items())})"
    try:
        network = function(**given)
    except Exception as error:
        raise SpecError(f"model.module: {called} raised {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise SpecError(f"model.module: {called} returned a {type(network).__name__}, not a torch.nn.Module")
    return network


def roles_in(network: nn.Module, spec: ModuleSpec) -> dict[str, str]:
    """Return name → role of all parameters; names are the author's choice, so the network's structure decides.

    What `spec.roles` matches has that role. Weights of `nn.Embedding` are embeddings, other matrices with a row for
    each entry of the vocabulary are the unembedding. All else is judged by its name (`roles.role_of`): a name that says
    nothing is a hidden matrix, or a norm or bias.

    Raises:
        SpecError: If a regular expression of `spec.roles` matches no tensor.
    """
    embeddings = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if isinstance(module, nn.Embedding)
        for name, _ in module.named_parameters(recurse=False)
    }
    roles, unused = {}, set(spec.roles)
    for name, param in network.named_parameters():
        given = next((regex for regex in spec.roles if re.search(regex, name)), None)
        if given is not None:
            roles[name] = spec.roles[given]
            unused.discard(given)
        elif name in embeddings:
            roles[name] = "embedding"
        elif param.dim() == 2 and param.shape[0] == spec.vocab_size:
            roles[name] = "lm_head"
        else:
            roles[name] = role_of(name, param.dim())
    if unused:
        raise SpecError(f"model.roles: {min(unused)!r} matches no tensor; there are {', '.join(roles)}")
    return roles


class Shape(NamedTuple):
    """How many parameters a network has."""

    total: int
    embedding: int
    head: int
    tensors: Mapping[str, tuple[int, ...]]
    """Name → shape of all of them."""
    roles: frozenset[str]
    """Roles that they have."""


def shape_of(spec: ModuleSpec) -> Shape:
    """Return how many parameters the network of `spec` has, and their shapes; nothing is allocated if it can be helped.

    Raises:
        SpecError, InputError: As `construct`; and if a forward pass shows that it returns no logits.
    """
    key = json.dumps(spec.model_dump(), sort_keys=True, default=str)
    if key not in _SHAPES:
        _SHAPES[key] = _shape_of(spec)
    return _SHAPES[key]


_SHAPES: dict[str, Shape] = {}
"""Specs seen so far: the parameters of a study's sizes are counted many times."""


def _shape_of(spec: ModuleSpec) -> Shape:
    load_function("model.module", spec.module, spec.folder)  # its own errors are not those of the meta device
    try:
        with torch.device("meta"):
            network = construct(spec)
            out = network(torch.zeros(PROBE, dtype=torch.long))
    except Exception:  # an operation that has no meta version, or a real mistake, which comes again
        network = construct(spec)
        out = _called(network, torch.zeros(PROBE, dtype=torch.long), spec)
    _check_logits(out, PROBE, spec)
    sizes = {name: param.numel() for name, param in network.named_parameters()}
    roles = roles_in(network, spec)
    embedding, head = (
        sum(size for name, size in sizes.items() if roles[name] == role) for role in ("embedding", "lm_head")
    )
    tensors = {name: tuple(param.shape) for name, param in network.named_parameters()}
    return Shape(
        total=sum(sizes.values()), embedding=embedding, head=head, tensors=tensors, roles=frozenset(roles.values())
    )


def _called(network: nn.Module, ids_BT: Tensor, spec: ModuleSpec) -> Any:
    try:
        return network(ids_BT)
    except Exception as error:
        raise SpecError(
            f"model.module: {spec.module}: forward(tokens), with tokens of shape {list(ids_BT.shape)}, raised "
            f"{type(error).__name__}: {error}"
        ) from error


def _check_logits(out: Any, shape: tuple[int, ...], spec: ModuleSpec) -> None:
    wanted = [*shape, spec.vocab_size]
    if not isinstance(out, Tensor) or list(out.shape) != wanted or not out.is_floating_point():
        what = f"{out.dtype} of shape {list(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise SpecError(
            f"model.module: {spec.module}: forward(tokens) must return the logits of the next token, a tensor of shape "
            f"[sequences, tokens, vocabulary] = {wanted}; it returned {what}"
        )


class UserModule(nn.Module):
    """The network of a `ModuleSpec`, with random weights from `seed` (those that torch's generator draws).

    Raises:
        SpecError: If the network is not as `ModuleSpec` says, or not causal.
    """

    def __init__(self, spec: ModuleSpec, *, seed: int, z_loss: float = 0.0) -> None:
        super().__init__()
        self.spec, self.z_loss = spec, z_loss
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = construct(spec)
        self.network.float()
        self.roles = {f"network.{name}": role for name, role in roles_in(self.network, spec).items()}
        self._check()

    def _check(self) -> None:
        """Compare the logits of sequences that differ in their last token only."""
        ids_BT = torch.randint(0, self.spec.vocab_size, PROBE, generator=torch.Generator().manual_seed(0))
        other_BT = ids_BT.clone()
        other_BT[:, -1] = (other_BT[:, -1] + 1) % self.spec.vocab_size
        self.network.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits_BTV, others_BTV = (_called(self.network, ids, self.spec) for ids in (ids_BT, other_BT))
        self.network.train()
        _check_logits(logits_BTV, PROBE, self.spec)
        difference = (logits_BTV - others_BTV)[:, :-1].abs().max()
        if difference > CAUSAL * logits_BTV.abs().max():
            raise SpecError(
                f"model.module: {self.spec.module}: the logits at a position change with a later token: the network "
                "sees what it is to predict, and its loss would mean nothing; mask later positions"
            )

    def after_step(self) -> None:
        """Nothing follows a step."""

    def forward(
        self, ids_BT: Tensor, labels_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> Tensor | Losses:
        """As `Qwen3MoE.forward`, without documents."""
        logits_BTV = self.network(ids_BT)
        _check_logits(logits_BTV, tuple(ids_BT.shape), self.spec)
        if labels_BT is None:
            found: Tensor = logits_BTV
            return found
        logits_NV = logits_BTV.float().flatten(0, 1)
        cross_entropy = total = F.cross_entropy(logits_NV, labels_BT.reshape(-1))
        if self.z_loss:
            total = total + self.z_loss * torch.logsumexp(logits_NV, -1).square().mean()
        return Losses(total, cross_entropy.detach(), *cross_entropy.new_zeros(2))
