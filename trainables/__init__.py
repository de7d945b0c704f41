"""Trainables: a Qwen3-MoE (or a Hugging Face causal LM) trained by DeepSpeed, as a plain function and as a Ray Tune
trainable.

`pretrain` is the trainable, `train` the loop without Ray, `ModelSpec` and `TrainSpec` what they train. Importing this
package loads neither torch nor Ray.
"""

from raylr.trainables.pretrain import pretrain, train
from raylr.trainables.spec import HFSpec, ModelSpec, TrainSpec

__all__ = ["HFSpec", "ModelSpec", "TrainSpec", "pretrain", "train"]
