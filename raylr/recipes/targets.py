"""The trainers that recipes are written for."""

from __future__ import annotations

from raylr.recipes import axolotl, deepspeed, hf, megatron, nanotron, torchtitan

TARGETS = {
    "megatron": megatron,
    "torchtitan": torchtitan,
    "nanotron": nanotron,
    "deepspeed": deepspeed,
    "hf": hf,
    "axolotl": axolotl,
}
"""Name of a trainer -> its module, which has `write(recipe)`."""
