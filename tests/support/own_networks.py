"""Networks that users write: one that works, and what can be wrong with one."""

from typing import Any

import torch
from torch import Tensor, nn


class Network(nn.Module):
    """Means of the embeddings so far, an MLP, logits."""

    def __init__(self, vocab_size: int, width: int = 16, tied: bool = False) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, width)
        self.inner = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.gain = nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, vocab_size, bias=False)
        if tied:
            self.out.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        steps = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
        means = self.table(tokens).cumsum(1) / steps[:, None]
        logits: Tensor = self.out(self.gain * (means + self.inner(means)))
        return logits


class Late(Network):
    """Draws some numbers on the CPU, as torch's meta device cannot."""

    def __init__(self, vocab_size: int) -> None:
        super().__init__(vocab_size)
        self.scale = float(torch.rand(()).item())


class SeesAll(Network):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens) + self.out(self.table(tokens).mean(1, keepdim=True))


class Two(Network):
    def forward(self, tokens: Tensor) -> Any:
        return super().forward(tokens), None


class Last(Network):
    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens)[:, -1]


class WithLabels(Network):
    def forward(self, tokens: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(tokens)


def no_module(vocab_size: int) -> dict[str, int]:
    return {"vocab": vocab_size}


def without_vocabulary(width: int) -> Network:
    return Network(300, width)
