"""The trainers that recipes are written for."""

from __future__ import annotations

from raylr.recipes import axolotl, deepspeed, hf, megatron, nanotron, pytorch, torchtitan

TARGETS = {
    "megatron": megatron,
    "torchtitan": torchtitan,
    "nanotron": nanotron,
    "deepspeed": deepspeed,
    "hf": hf,
    "axolotl": axolotl,
    "torch": pytorch,
}
"""Name of a trainer -> its module, which has `write(recipe)`."""
GROUPED = ("torch",)
"""Trainers whose recipe has groups of tensors with hyperparameters of their own."""
