from typing import Any

import pytest
from tiny_runs import MODEL

from raylr.errors import InputError
from raylr.trainables.export.config import both_spellings, check_expressible


@pytest.mark.parametrize(
    "feature",
    [{"qk_norm": False}, {"shared_expert_size": 8}, {"balance": "bias"}, {"qk_norm": False, "balance": "bias"}],
)
def test_models_that_qwen3_moe_cannot_express_are_named(feature: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        check_expressible(MODEL.model_copy(update=feature))
    assert "Qwen3-MoE has no" in str(error.value)
    assert all(f"no {name}={value!r}" in str(error.value) for name, value in feature.items())


def test_what_a_dense_qwen3_cannot_express_is_named() -> None:
    dense = {"experts": 0, "top_k": 0, "expert_size": 0, "dense_layers": 2, "dense_size": 48, "qk_norm": False}
    with pytest.raises(InputError, match="Qwen3 has no qk_norm=False"):
        check_expressible(MODEL.model_copy(update=dense))


def test_both_spellings_leave_other_keys() -> None:
    v5 = {
        "num_local_experts": 8,
        "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2},
        "dtype": "x",
    }
    both = both_spellings(v5 | {"other": 1})
    assert both["num_experts"] == 8
    assert both["rope_theta"] == 1e4
    assert both["rope_scaling"] == {"rope_type": "yarn", "factor": 2}
    assert both["torch_dtype"] == "x"
    assert both_spellings({"other": 1}) == {"other": 1}
