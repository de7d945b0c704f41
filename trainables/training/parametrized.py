"""`ParametrizationSpec`: hyperparameters of a run that are a smaller network's, carried over by rule. No torch."""

from __future__ import annotations

from typing import Any, Literal, Self

import pydantic
from pydantic import Field, field_validator, model_validator

from raylr.errors import SpecError
from raylr.trainables.models.parametrization import Parametrization, parametrization
from raylr.trainables.models.spec import AnyModelSpec, FrozenSpec, HFSpec, ModelSpec, ModuleSpec, model_spec
from raylr.trainables.models.transfer import Transfer, network_of, transfer


class ParametrizationSpec(FrozenSpec):
    """By which rule the hyperparameters of a base (a smaller network that was tuned) are carried to the run's network.

    The run's LR, `init_std`, `weight_decay` and `eps` are then the base's.

    Raises:
        pydantic.ValidationError: A ValueError with one sentence for each setting that is wrong.

    Example:
        >>> size = {"layers": 2, "kv_heads": 1, "head_dim": 16, "experts": 4, "top_k": 2, "vocab_size": 64}
        >>> small, large = ({"hidden_size": h, "heads": h // 16, "expert_size": h} | size for h in (32, 128))
        >>> given = ParametrizationSpec(base=small, token_ratio=4.0)
        >>> sorted({one.factors["lr"] for one in given.transfer(ModelSpec(**large)).tensors})
        [0.125, 0.5]
    """

    rule: str | dict[str, Any] = "completed_p"
    """`standard`, `mup`, `completep`, `completed_p`, or the content of an own table (docs/transfer.md)."""
    choose: dict[str, str] = Field(default_factory=dict)
    """Disputed point → option, such as {router: output}; not with an own table."""
    alpha: float = 1.0
    """Exponent of the residual multiplier m_L^-alpha, 0.5 to 1; not with an own table."""
    base: dict[str, Any]
    """Keys of the base's model (`ModelSpec`, or `hf`)."""
    token_ratio: float = Field(default=1.0, gt=0)
    """Training tokens of the run over those of the base."""
    batch_ratio: float = Field(default=1.0, gt=0)
    """Tokens of one optimizer step of the run over those of the base."""
    multipliers: Literal["place", "fold"] = "place"
    """Where multipliers on residual branches and logits go: "place", into the attribute that the layers have for it (an
    error without one); "fold", into the last matrix of each block, which trains the same."""

    @field_validator("base")
    @classmethod
    def _is_a_model(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            if isinstance(model_spec(value), ModuleSpec):
                raise SpecError("module: the roles of the tensors of a network of one's own are not known")
        except pydantic.ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None
        return value

    @model_validator(mode="after")
    def _is_a_rule(self) -> Self:
        self.table()
        return self

    def table(self) -> Parametrization:
        """Return the parametrization.

        Raises:
            SpecError: If there is no parametrization of that name, or a choice has no meaning in it.
        """
        return read_table(self.rule, self.choose, self.alpha)

    def base_model(self) -> ModelSpec | HFSpec:
        """Return the base's model."""
        found = model_spec(self.base)
        assert not isinstance(found, ModuleSpec)
        return found

    def transfer(self, model: AnyModelSpec) -> Transfer:
        """Return the factors on the base's hyperparameters, tensor by tensor of `model`.

        Raises:
            SpecError: If the two networks cannot be compared (`raylr.trainables.models.transfer.transfer`).
        """
        small = network_of(self.base_model(), tokens=1.0, batch_tokens=1.0)
        large = network_of(model, tokens=self.token_ratio, batch_tokens=self.batch_ratio)
        return transfer(small, large, self.table())

    def multiplied(self, model: AnyModelSpec) -> AnyModelSpec:
        """Return the model as it is trained, with the rule's factor in its residual multiplier: what exports need."""
        if not isinstance(model, ModelSpec) or self.multipliers == "fold":
            return model
        factor = self.transfer(model).residual
        return model.model_copy(update={"residual_multiplier": model.residual_multiplier * factor})


def read_table(rule: str | dict[str, Any], choose: dict[str, str], alpha: float) -> Parametrization:
    """Return a published parametrization by its name with options, or the own table that a mapping describes.

    Raises:
        SpecError: If there is no such parametrization, or options are given for an own table, which has all its terms
            written out.
    """
    if isinstance(rule, str):
        return parametrization(rule, alpha=alpha, **choose)
    if choose or alpha != 1.0:
        raise SpecError("choose and alpha belong to the published parametrizations; write them into the table's terms")
    return Parametrization.from_dict(rule)
