"""Causal language models of Hugging Face's transformers behind the interface of `Qwen3MoE`."""

from __future__ import annotations

import json
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylr.errors import SpecError
from raylr.trainables.models.balance import balance_losses
from raylr.trainables.models.interface import Losses
from raylr.trainables.models.roles import TIED, role_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def configuration(source: str | dict[str, Any]) -> PretrainedConfig:
    """Return the configuration in a folder, on the hub, or given as a dict.

    Raises:
        SpecError: If transformers does not know it.
    """
    from transformers import AutoConfig

    try:
        if isinstance(source, str):
            return AutoConfig.from_pretrained(source)
        if "model_type" not in source:
            raise ValueError("it has no model_type (for example 'qwen3_moe' or 'llama')")
        return AutoConfig.for_model(**source)
    except (OSError, ValueError, TypeError) as error:
        raise SpecError(f"model: hf={source!r} is not a configuration that transformers reads: {error}") from error


def _network(config: PretrainedConfig) -> nn.Module:
    from transformers import AutoModelForCausalLM

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return network


def count_params(source: str | dict[str, Any]) -> dict[str, int]:
    """Return the parameters of each kind of `ModelSpec.params`; nothing is allocated."""
    return dict(_counts(json.dumps(configuration(source).to_dict(), sort_keys=True, default=str)))


@lru_cache(maxsize=64)
def _counts(fields: str) -> dict[str, int]:
    config = configuration(json.loads(fields))
    with torch.device("meta"):
        network = _network(config)
    sizes: dict[str, int] = {}
    for name, param in network.named_parameters():
        role = role_of(name, param.dim())
        sizes[role] = sizes.get(role, 0) + param.numel()
    total = sum(sizes.values())
    experts = sizes.get("experts_in", 0) + sizes.get("experts_out", 0)
    return {
        "total": total,
        "active": total - round(experts * (1 - _share_of_experts(config))) if experts else total,
        "non_embedding": total - sizes.get("embedding", 0) - sizes.get("lm_head", 0),
    }


def roles_on_meta(source: str | dict[str, Any]) -> frozenset[str]:
    """Return the roles of the parameters; nothing is allocated."""
    with torch.device("meta"):
        network = _network(configuration(source))
    return frozenset(role_of(name, param.dim()) for name, param in network.named_parameters())


def _share_of_experts(config: PretrainedConfig) -> float:
    """Share of the routed experts that a token uses."""
    counts = (getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    there, used = next((count for count in counts if count), None), getattr(config, "num_experts_per_tok", None)
    if there is None or used is None:
        raise SpecError(
            f"model: hf: the configuration of {config.model_type} does not say how many experts a token uses"
        )
    return float(used / there)


def shapes_on_meta(source: str | dict[str, Any]) -> tuple[dict[str, tuple[int, ...]], frozenset[str]]:
    """Return name → shape of all parameters, and the names of those that have their fan-in before their fan-out.

    Nothing is allocated.

    Raises:
        SpecError: If the model ties its embeddings, which have two roles then.
    """
    with torch.device("meta"):
        network = _network(configuration(source))
    return shapes_and_orientation(network)


def shapes_and_orientation(network: nn.Module) -> tuple[dict[str, tuple[int, ...]], frozenset[str]]:
    """Return what `shapes_on_meta` does, of any module.

    Raises:
        SpecError: If two names are one tensor.
    """
    first: dict[int, str] = {}
    for name, param in network.named_parameters(remove_duplicate=False):
        if (other := first.setdefault(id(param), name)) != name:
            raise SpecError(f"{other} and {name} are one tensor, and {TIED}")
    shapes = {name: tuple(getattr(param, "ds_shape", param.shape)) for name, param in network.named_parameters()}
    return shapes, transposed_names(network)


def transposed_names(network: nn.Module) -> frozenset[str]:
    """Return the names of the matrices that have their fan-in before their fan-out, as GPT-2's have."""
    return frozenset(
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        if type(module).__name__ == "Conv1D" or getattr(module, "is_transposed", False)
        for name, param in module.named_parameters(recurse=False)
        if param.dim() > 1
    )


def flops_per_token(source: str | dict[str, Any], seq_len: int) -> float:
    """Return the FLOPs of training on one token, as `ModelSpec.flops_per_token`.

    Forward: 2 for each active weight of a matrix product, and causal attention if the architecture has attention heads.
    Backward is twice that.
    """
    config = configuration(source)
    counts = count_params(source)
    embeddings = config.vocab_size * config.hidden_size
    inactive = counts["total"] - counts["active"]
    weights = counts["non_embedding"] - inactive + embeddings
    heads = getattr(config, "num_attention_heads", 0)
    width = heads * config.head_dim if getattr(config, "head_dim", None) else config.hidden_size if heads else 0
    scores = config.num_hidden_layers * 2 * (seq_len + 1) * width
    return 3.0 * float(2 * weights + scores)


class HuggingFaceModel(nn.Module):
    """A causal LM of Hugging Face with random weights.

    The load-balancing loss of a mixture of experts enters with the coefficient of its configuration.

    Args:
        source: The configuration: a folder, a name on the hub, or its keys as a dict.
        seed: Seed of the weights; the caller's random state is left as it is.
        z_loss: Weight of the mean squared log-partition in the loss.
        activation_checkpointing: Whether activations are computed again in the backward pass to save memory.
        within_documents: Whether attention stays within each document.

    Raises:
        SpecError: If `within_documents` is requested of a mixture of experts, whose loss takes no such mask.
    """

    def __init__(
        self,
        source: str | dict[str, Any],
        *,
        seed: int,
        z_loss: float = 0.0,
        activation_checkpointing: bool = False,
        within_documents: bool = False,
    ) -> None:
        super().__init__()
        self.z_loss = z_loss
        config = configuration(source)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _network(config)
        if activation_checkpointing:
            enable: Any = self.network.gradient_checkpointing_enable
            enable({"use_reentrant": False})
        self.aux_coefficient = float(getattr(config, "router_aux_loss_coef", 0.0) or 0.0)
        self.top_k = int(getattr(config, "num_experts_per_tok", 1) or 1)
        self.routed = hasattr(config, "output_router_logits")
        if within_documents and self.routed:
            raise SpecError(
                "cross_document_attention=False: transformers' load-balancing loss does not take the mask that this "
                "needs; describe the mixture by a ModelSpec instead of hf, or leave the attention across documents on"
            )

    def after_step(self) -> None:
        """Nothing follows a step."""

    def forward(
        self, ids_BT: Tensor, labels_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> Tensor | Losses:
        """As `Qwen3MoE.forward`."""
        extra: dict[str, Any] = {"output_router_logits": True} if self.routed else {}
        if documents_BT is not None:
            T = ids_BT.shape[1]
            past = torch.ones(T, T, dtype=torch.bool, device=ids_BT.device).tril()
            extra["attention_mask"] = ((documents_BT[:, :, None] == documents_BT[:, None]) & past)[:, None]
        out = self.network(input_ids=ids_BT, use_cache=False, **extra)
        if labels_BT is None:
            logits_BTV: Tensor = out.logits
            return logits_BTV
        logits_NV = out.logits.float().flatten(0, 1)
        cross_entropy = total = F.cross_entropy(logits_NV, labels_BT.reshape(-1))
        if self.z_loss:
            total = total + self.z_loss * torch.logsumexp(logits_NV, -1).square().mean()
        aux = getattr(out, "aux_loss", None)
        if aux is None:
            return Losses(total, cross_entropy.detach(), *cross_entropy.new_zeros(2))
        layers = self._layer_aux_loss(out.router_logits)
        return Losses(total + self.aux_coefficient * aux, cross_entropy.detach(), aux.detach(), layers)

    def _layer_aux_loss(self, router_logits: Any) -> Tensor:
        """Mean over layers of each layer's load-balancing loss, from the logits [tokens, experts] of each router."""
        probs_LNE = torch.stack([F.softmax(logits.detach().float(), -1) for logits in router_logits])
        chosen_LNk = torch.topk(probs_LNE, self.top_k, -1).indices
        loads_LE = torch.zeros_like(probs_LNE).scatter_(-1, chosen_LNk, 1.0).sum(1)
        return balance_losses(loads_LE, probs_LNE.sum(1), probs_LNE.shape[1])[1]
