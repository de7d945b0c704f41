"""From a spec to an initialised network."""

from __future__ import annotations

from torch import nn

from raylr.errors import SpecError
from raylr.trainables.models.spec import AnyModelSpec, HFSpec, ModuleSpec


def build(
    spec: AnyModelSpec,
    *,
    seed: int,
    z_loss: float = 0.0,
    activation_checkpointing: bool = False,
    within_documents: bool = False,
) -> nn.Module:
    """Build the network of a run, with random weights.

    Args:
        spec: The model.
        seed: Seed of the initial weights.
        z_loss: Coefficient of the mean squared log-partition in the training loss.
        activation_checkpointing: Whether activations are computed again in the backward pass, to save memory.
        within_documents: Whether the network will get document numbers, so that attention stays within documents.

    Returns:
        A module that fulfils `raylr.trainables.models.interface.LanguageModel`.

    Raises:
        SpecError: If the model cannot be built or cannot do what is wanted of it.
    """
    if isinstance(spec, ModuleSpec):
        from raylr.trainables.models.module import UserModule

        if activation_checkpointing or within_documents:
            setting = "activation_checkpointing=True" if activation_checkpointing else "cross_document_attention=False"
            raise SpecError(
                f"{setting} is not possible with model.module: raylr does not know the layers of {spec.module}"
            )
        return UserModule(spec, seed=seed, z_loss=z_loss)
    if isinstance(spec, HFSpec):
        from raylr.trainables.models.hf import HuggingFaceModel

        return HuggingFaceModel(
            spec.hf,
            seed=seed,
            z_loss=z_loss,
            activation_checkpointing=activation_checkpointing,
            within_documents=within_documents,
        )
    from raylr.trainables.models.qwen3_moe import Qwen3MoE

    model = Qwen3MoE(spec, z_loss=z_loss, activation_checkpointing=activation_checkpointing)
    model.initialise(seed)
    return model
