"""Somebody's Hugging Face `Trainer` script. It knows nothing of raylr.

python train_hf.py --learning_rate 3e-3 --max_steps 48 --hidden 32 --eval_steps 4 --output_dir out
"""

import argparse
import sysconfig
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

LENGTH = 64


class Rows(torch.utils.data.Dataset):
    """Windows of the Python standard library's sources, as bytes."""

    def __init__(self, first: int, last: int):
        folder = Path(sysconfig.get_paths()["stdlib"])
        data = b"".join(p.read_bytes() for p in sorted(folder.glob("*.py"))[:20])
        rows = torch.frombuffer(bytearray(data), dtype=torch.uint8).long()
        self.rows = rows[: len(rows) // LENGTH * LENGTH].view(-1, LENGTH)[first:last]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict:
        return {"input_ids": self.rows[i], "labels": self.rows[i]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--max_steps", type=int, required=True)
    parser.add_argument("--hidden", type=int, required=True)
    parser.add_argument("--eval_steps", type=int, required=True)
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(given.seed)
    size = LlamaConfig(
        vocab_size=256, hidden_size=given.hidden, intermediate_size=2 * given.hidden, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    arguments = TrainingArguments(
        output_dir=given.output_dir, max_steps=given.max_steps, learning_rate=given.learning_rate, seed=given.seed,
        lr_scheduler_type="constant", per_device_train_batch_size=8, per_device_eval_batch_size=64, report_to=[],
        eval_strategy="steps", save_strategy="steps", eval_steps=given.eval_steps, save_steps=given.eval_steps,
        save_total_limit=2, use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    trainer = Trainer(model=LlamaForCausalLM(size), args=arguments, train_dataset=Rows(64, 10**6),
                      eval_dataset=Rows(0, 64))  # fmt: skip
    trainer.train(resume_from_checkpoint=get_last_checkpoint(given.output_dir))


if __name__ == "__main__":
    main()
