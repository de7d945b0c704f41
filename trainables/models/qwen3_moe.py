"""Qwen3-MoE as a training model (Qwen3, where no layer has experts), with Hugging Face's parameter names and numbers.

Shape suffixes: B batch, T positions, h hidden size, H query heads, K key/value heads, d head size, N = B·T tokens, E
experts, k experts a token, f expert size, V vocabulary. `Qwen3MoE(spec)(ids_BT, labels_BT)` gives `Losses`; without
labels, logits. Weights are fp32; an engine may cast them. Sizes are `ModelSpec`'s; the source of the architecture is
transformers' `qwen3_moe`.
"""

from __future__ import annotations

from types import SimpleNamespace

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from raylr.trainables.models.attention import causal_attention, rope_tables
from raylr.trainables.models.balance import balance_losses
from raylr.trainables.models.cpu_kernels import RMSNormalise, cross_entropy, linear
from raylr.trainables.models.experts import mixture
from raylr.trainables.models.interface import Losses
from raylr.trainables.models.routing import Choice
from raylr.trainables.models.spec import ModelSpec


class RMSNorm(nn.Module):
    """x / √(mean x² + eps) · weight over the last dimension, in fp32 inside."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        if x.device.type == "cpu":
            y: Tensor = RMSNormalise.apply(x, self.weight, self.eps)
            return y
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    """Grouped-query attention with QK norm and RoPE."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        h, d = spec.hidden_size, spec.head_dim
        self.heads, self.kv_heads, self.eps = spec.heads, spec.kv_heads, spec.rms_norm_eps
        self.q_proj = nn.Linear(h, spec.heads * d, bias=False)
        self.k_proj = nn.Linear(h, spec.kv_heads * d, bias=False)
        self.v_proj = nn.Linear(h, spec.kv_heads * d, bias=False)
        self.o_proj = nn.Linear(spec.heads * d, h, bias=False)
        self.q_norm = RMSNorm(d, spec.rms_norm_eps) if spec.qk_norm else None
        self.k_norm = RMSNorm(d, spec.rms_norm_eps) if spec.qk_norm else None

    def forward(self, x_BTh: Tensor, rope: tuple[Tensor, Tensor], documents_BT: Tensor | None) -> Tensor:
        """[B, T, h]."""
        weight = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        norm = None
        if self.q_norm and self.k_norm:
            queries, keys = self.q_norm.weight.expand(self.heads, -1), self.k_norm.weight.expand(self.kv_heads, -1)
            norm = torch.cat((queries, keys))
        out = causal_attention(linear(x_BTh, weight), norm, self.eps, rope, self.heads, documents_BT)
        return linear(out, self.o_proj.weight)


class MLP(nn.Module):
    """SwiGLU: down(silu(gate(x)) · up(x))."""

    def __init__(self, hidden_size: int, size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, size, bias=False)
        self.up_proj = nn.Linear(hidden_size, size, bias=False)
        self.down_proj = nn.Linear(size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as x."""
        inner = F.silu(linear(x, self.gate_proj.weight)) * linear(x, self.up_proj.weight)
        return linear(inner, self.down_proj.weight)


class Router(nn.Module):
    """Softmax over all experts, the top k of them, their weights scaled to sum to 1.

    With `balance="bias"` the choice (not the weights) is made after adding `steps` · rate, and `load` counts what was
    chosen. Both are integers, so that an engine's cast to bf16 leaves them exact.
    """

    steps: Tensor
    load: Tensor

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.top_k = spec.top_k
        self.weight = nn.Parameter(torch.empty(spec.experts, spec.hidden_size))
        self.biased, self.rate = spec.balance == "bias", spec.bias_rate
        if self.biased:
            self.register_buffer("steps", torch.zeros(spec.experts, dtype=torch.int64))
            self.register_buffer("load", torch.zeros(spec.experts, dtype=torch.int64), persistent=False)

    def forward(self, x_Nh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities [N, E] in fp32, weights [N, k] in x's type, experts [N, k]."""
        bias_E = self.steps * self.rate if self.biased else None
        probs_NE, weights_Nk, experts_Nk = Choice.apply(linear(x_Nh, self.weight), bias_E, self.top_k)
        return probs_NE, weights_Nk, experts_Nk

    def rebalance(self) -> None:
        """A step of auxiliary-loss-free balancing (arXiv 2408.15664): biases of experts with too few tokens rise."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(self.load)
        self.steps += torch.sign(self.load.sum() - self.load * self.load.numel())
        self.load.zero_()


class Experts(nn.Module):
    """The weights of all experts of a layer, in Hugging Face's fused layout."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.empty(spec.experts, 2 * spec.expert_size, spec.hidden_size))
        self.down_proj = nn.Parameter(torch.empty(spec.experts, spec.hidden_size, spec.expert_size))
        self.act_fn = nn.SiLU()

    def forward(self, x_Nh: Tensor, experts_Nk: Tensor, weights_Nk: Tensor) -> tuple[Tensor, Tensor]:
        """Output [N, h] and tokens of each expert [E]."""
        return mixture(x_Nh, self.gate_up_proj, self.down_proj, experts_Nk, weights_Nk)


class MoE(nn.Module):
    """Router, experts and, if the spec has one, the shared expert."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.gate = Router(spec)
        self.experts = Experts(spec)
        self.shared_expert = MLP(spec.hidden_size, spec.shared_expert_size) if spec.shared_expert_size else None
        self.shared_expert_gate = nn.Linear(spec.hidden_size, 1, bias=False) if spec.shared_expert_size else None

    def forward(self, x_BTh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Output [B, T, h]; tokens per expert [E] (integers); sum of router probabilities per expert [E]."""
        x_Nh = x_BTh.reshape(-1, x_BTh.shape[-1])
        probs_NE, weights_Nk, experts_Nk = self.gate(x_Nh)
        y_Nh, load_E = self.experts(x_Nh, experts_Nk, weights_Nk)
        if self.shared_expert is not None and self.shared_expert_gate is not None:
            y_Nh = y_Nh + torch.sigmoid(self.shared_expert_gate(x_Nh)) * self.shared_expert(x_Nh)
        if self.gate.biased and self.training:
            self.gate.load += load_E
        return y_Nh.view_as(x_BTh), load_E, probs_NE.sum(0)


class Block(nn.Module):
    """One decoder layer."""

    seen: list[Tensor]

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(spec)
        self.mlp: MLP | MoE = MLP(spec.hidden_size, spec.dense_size) if layer < spec.dense_layers else MoE(spec)
        self.input_layernorm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.multiplier = spec.residual_multiplier
        self.watching, self.seen = 0, []

    def forward(
        self, x_BTh: Tensor, rope: tuple[Tensor, Tensor], documents_BT: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Output [B, T, h] and, of a layer with experts, load and probabilities per expert as `MoE` gives them."""
        x_BTh = self._add(x_BTh, self.self_attn(self.input_layernorm(x_BTh), rope, documents_BT))
        y = self.mlp(self.post_attention_layernorm(x_BTh))
        out, load_E, probs_E = y if isinstance(y, tuple) else (y, *self._watched())
        return self._add(x_BTh, out), load_E, probs_E

    def watch(self, router: nn.Module, top_k: int) -> None:
        """Take load and probabilities from the logits of `router`: DeepSpeed's expert-parallel layer does not return
        them."""
        self.watching = top_k
        router.register_forward_hook(lambda _, __, logits_NE: self.seen.append(logits_NE))

    def _watched(self) -> tuple[Tensor | None, Tensor | None]:
        if not self.watching:
            return None, None
        probs_NE = F.softmax(self.seen.pop().float(), -1)
        self.seen.clear()
        chosen = torch.topk(probs_NE, self.watching, -1).indices.reshape(-1)
        return torch.bincount(chosen, minlength=probs_NE.shape[-1]), probs_NE.sum(0)

    def _add(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y if self.multiplier == 1.0 else torch.add(x, y, alpha=self.multiplier)


class Decoder(nn.Module):
    """Embedding, layers and final norm (the module that Hugging Face calls `model`)."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(Block(spec, layer) for layer in range(spec.layers))
        self.norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps)
        self.activation_checkpointing = False

    def forward(self, ids_BT: Tensor, documents_BT: Tensor | None = None) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Hidden states [B, T, h] after the norm; load and probabilities per expert of each layer that has experts."""
        x_BTh = self.embed_tokens(ids_BT)
        rope = rope_tables(ids_BT.shape[1], self.spec.head_dim, self.spec.rope_theta, x_BTh.device)
        loads, probs = [], []
        for layer in self.layers:
            if self.activation_checkpointing and self.training:
                x_BTh, load_E, probs_E = checkpoint(layer, x_BTh, rope, documents_BT, use_reentrant=False)
            else:
                x_BTh, load_E, probs_E = layer(x_BTh, rope, documents_BT)
            if load_E is not None:
                loads.append(load_E)
                probs.append(probs_E)
        return self.norm(x_BTh), loads, probs


class Qwen3MoE(nn.Module):
    """The language model. `z_loss` is the coefficient of the mean squared log-partition."""

    def __init__(self, spec: ModelSpec, *, z_loss: float = 0.0, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.spec, self.z_loss = spec, z_loss
        self.model = Decoder(spec)
        self.model.activation_checkpointing = activation_checkpointing
        self.lm_head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        self.config = SimpleNamespace(
            model_type="qwen3_moe", num_experts=spec.experts, num_experts_per_tok=spec.top_k, norm_topk_prob=True
        )
        """What DeepSpeed's AutoEP reads of a model."""
        if spec.tied_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight

    def initialise(self, seed: int) -> None:
        """Draw all matrices from N(0, init_std²), from the seed alone; norms become 1 and router biases 0."""
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for param in self.parameters():
                if param.dim() > 1:
                    param.normal_(0.0, self.spec.init_std, generator=generator)
                else:
                    param.fill_(1.0)

    def watch_routers(self) -> None:
        """Call once DeepSpeed's AutoEP has replaced the MoE blocks: brings back the load-balancing loss, which it
        drops."""
        for layer in self.model.layers:
            if isinstance(layer, Block) and hasattr(layer.mlp, "router"):
                layer.watch(layer.mlp.get_submodule("router.gate"), self.spec.top_k)

    def after_step(self) -> None:
        """What follows an optimizer step: router biases move (with `balance="bias"`)."""
        if self.spec.balance == "bias":
            for module in self.modules():
                if isinstance(module, Router):
                    module.rebalance()

    def forward(
        self, ids_BT: Tensor, labels_BT: Tensor | None = None, documents_BT: Tensor | None = None
    ) -> Tensor | Losses:
        """Logits [B, T, V] without labels; with labels (the next tokens, [B, T]) the losses of this batch."""
        x_BTh, loads, probs = self.model(ids_BT, documents_BT)
        if labels_BT is None:
            return linear(x_BTh, self.lm_head.weight)
        total, mean = cross_entropy(x_BTh.flatten(0, 1), self.lm_head.weight, labels_BT.reshape(-1), self.z_loss)
        if not loads:
            return Losses(total, mean.detach(), *mean.new_zeros(2))
        pooled, layers = balance_losses(torch.stack(loads), torch.stack(probs), ids_BT.numel())
        if self.spec.balance != "bias" and self.spec.aux_loss:
            total = total + self.spec.aux_loss * (pooled if self.spec.balance == "loss" else layers)
        return Losses(total, mean.detach(), pooled.detach(), layers.detach())
