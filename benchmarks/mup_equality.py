"""Training under raylr's μP against PyPI's `mup`, step by step: `pip install --no-deps mup`, then
`python benchmarks/mup_equality.py [--steps 20]`.

An MLP and a small transformer, each 3 and 4 times as wide as its base. (The keys have no bias: its
gradient is 0 but for rounding, which Adam would blow up.) `mup` multiplies the logits by 1/m and leaves all ε
alone; raylr's `mup` has the multiplier in the unembedding's init and LR, and ε is set too small to matter.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raylr.trainables import parametrize
from raylr.trainables.models.architecture import Architecture, Pattern

Readout = Callable[..., nn.Module]


class MLP(nn.Module):
    """Two hidden layers with biases."""

    def __init__(self, width: int, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.first, self.middle = nn.Linear(8, width), nn.Linear(width, width)
        self.last = readout(width, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.last(torch.relu(self.middle(torch.relu(self.first(x)))))


class Transformer(nn.Module):
    """Embedding, two layers with attention (logits over the size of a head, as μP has it) and an MLP, unembedding."""

    def __init__(self, width: int, readout: Readout = nn.Linear) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, width)
        self.layers = nn.ModuleList(nn.ModuleDict({
            "norm": nn.LayerNorm(width), "qkv": nn.Linear(width, 3 * width, bias=False), "out": nn.Linear(width, width),
            "norm2": nn.LayerNorm(width), "up": nn.Linear(width, 4 * width), "down": nn.Linear(4 * width, width),
        }) for _ in range(2))  # fmt: skip
        self.norm = nn.LayerNorm(width)
        self.last = readout(width, 16, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits."""
        x = self.embed(ids)
        layer: Any
        for layer in self.layers:
            q, k, v = (part.unflatten(-1, (-1, 8)).transpose(1, 2)
                       for part in layer["qkv"](layer["norm"](x)).chunk(3, -1))  # fmt: skip
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1 / 8)
            x = x + layer["out"](mixed.transpose(1, 2).flatten(2))
            x = x + layer["down"](torch.relu(layer["up"](layer["norm2"](x))))
        return self.last(self.norm(x))


def roles(*pairs: tuple[str, str]) -> Architecture:
    return Architecture(name="own", patterns=tuple(Pattern(regex=regex, role=role) for regex, role in pairs))


CASES: dict[str, tuple[type[nn.Module], Architecture, Callable[[torch.Generator], tuple[Tensor, Tensor]]]] = {
    "MLP": (
        MLP,
        roles((r"^first", "embedding"), (r"bias", "hidden_biases"), (r"^middle", "hidden"), (r"^last", "lm_head")),
        lambda rng: (torch.randn(32, 8, generator=rng), torch.randint(16, (32,), generator=rng)),
    ),
    "transformer": (
        Transformer,
        roles(
            (r"^embed", "embedding"),
            (r"^norm", "final_norm"),
            (r"norm", "hidden_norms"),
            (r"bias", "hidden_biases"),
            (r"qkv", "attention_in"),
            (r"out", "attention_out"),
            (r"up", "dense_in"),
            (r"down", "dense_out"),
            (r"^last", "lm_head"),
        ),
        lambda rng: (torch.randint(16, (8, 16), generator=rng), torch.randint(16, (8, 16), generator=rng)),
    ),
}


def main() -> None:
    """Print the largest difference of outputs, losses and weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rule", default="mup", help="another rule, such as standard, to see that it differs")
    arguments = parser.parse_args()
    steps = arguments.steps
    import mup  # type: ignore[import-not-found]  # installed for this benchmark alone

    for (name, (make, architecture, batch)), ratio in itertools.product(CASES.items(), (3, 4)):
        torch.manual_seed(0)
        theirs: Any = make(16 * ratio, mup.MuReadout)
        ours: Any = make(16 * ratio)
        ours.load_state_dict(theirs.state_dict())
        mup.set_base_shapes(theirs, make(16, mup.MuReadout), delta=make(32, mup.MuReadout))
        # set_base_shapes rescales what nn.Linear drew (the readout, and biases); the embedding it leaves as it is
        options: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1, "eps": 1e-20, "betas": (0.9, 0.95)}
        groups = parametrize(ours, base=make(16), rule=arguments.rule, architecture=architecture, initialised="fan_in",
                             decay_vectors=True, **options)  # fmt: skip
        optimizers = [mup.MuAdamW(theirs.parameters(), **options), torch.optim.AdamW(groups)]
        rng, worst, first, last = torch.Generator().manual_seed(1), 0.0, 0.0, 0.0
        for step in range(steps):
            x, y = batch(rng)
            losses, outputs = [], []
            for model, optimizer in zip((theirs, ours), optimizers, strict=True):
                outputs.append(model(x))
                loss = F.cross_entropy(outputs[-1].flatten(0, -2), y.flatten())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
            one, other = (output.detach() for output in outputs)
            worst = max(worst, float((one - other).abs().max() / one.abs().max()))
            first, last = (losses[0] if step == 0 else first), losses[0]
        mine = dict(ours.named_parameters())
        apart = max(
            float(
                (param.detach() - (mine[key] * ratio if key.startswith("last") else mine[key]).detach()).norm()
                / param.detach().norm()
            )
            for key, param in theirs.named_parameters()
        )
        print(f"{name}, {ratio}×: {steps} steps, loss {first:.4f} to {last:.4f}; largest difference of an output "
              f"{worst:.1e} of the largest output, of a tensor {apart:.1e} of its norm")  # fmt: skip


if __name__ == "__main__":
    main()
