"""Somebody's PyTorch script. It knows nothing of raylr: it prints JSON lines, saves checkpoints, and can resume.

python train_torch.py --lr 3e-3 --tokens 40960 --width 20
"""

import argparse
import json
import sysconfig
from pathlib import Path

import torch

BATCH, LENGTH, HELD_OUT, CONTEXT = 16, 64, 256, 8


class Model(torch.nn.Module):
    """Predicts a byte from the eight before it: embeddings, a convolution, a head."""

    def __init__(self, width: int):
        super().__init__()
        self.embed = torch.nn.Embedding(256, width)
        self.mix = torch.nn.Conv1d(width, 4 * width, CONTEXT)
        self.head = torch.nn.Linear(4 * width, 256)

    def forward(self, x_BT: torch.Tensor) -> torch.Tensor:
        """Logits of the next byte."""
        x_BhT = torch.nn.functional.pad(self.embed(x_BT).transpose(1, 2), (CONTEXT - 1, 0))
        return self.head(torch.nn.functional.gelu(self.mix(x_BhT)).transpose(1, 2))


def text() -> torch.Tensor:
    folder = Path(sysconfig.get_paths()["stdlib"])
    data = b"".join(p.read_bytes() for p in sorted(folder.glob("*.py"))[:20])
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).long()


def loss_of(model: Model, rows: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--tokens", type=int, required=True)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eval-every", type=int, default=10, help="steps")
    parser.add_argument("--resume", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    data = text()
    held_out, data = data[-HELD_OUT * (LENGTH + 1) :].view(-1, LENGTH + 1), data[: -HELD_OUT * (LENGTH + 1)]
    model = Model(given.width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.lr)
    step = 0
    if given.resume:
        state = torch.load(given.resume)
        step = state["step"]
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    while step * BATCH * LENGTH < given.tokens:
        generator = torch.Generator().manual_seed(given.seed * 10**6 + step)
        at = torch.randint(len(data) - LENGTH - 1, (BATCH,), generator=generator)
        loss = loss_of(model, torch.stack([data[i : i + LENGTH + 1] for i in at]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        step += 1
        if step % given.eval_every == 0:
            with torch.no_grad():
                line = {"step": step, "train_loss": loss.item(), "val_loss": loss_of(model, held_out).item()}
            print(json.dumps(line), flush=True)
            state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, "writing.pt")
            Path("writing.pt").replace(f"step-{step}.pt")


if __name__ == "__main__":
    main()
