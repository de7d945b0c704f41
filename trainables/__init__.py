"""Trainables: a Qwen3-MoE (or a Hugging Face causal LM) trained by DeepSpeed, as a plain function and as a Ray Tune
trainable.

`pretrain` is the trainable, `train` the loop without Ray, `ModelSpec` and `TrainSpec` what they train. Importing this
package loads neither torch nor Ray.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
