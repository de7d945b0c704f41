import pytest
from tiny_runs import MODEL

from raylr.trainables.models.spec import ModelSpec


def paper(hidden_size: int, layers: int) -> ModelSpec:
    """A model of the paper's Table 1, with the counts that its text leaves out."""
    return ModelSpec(
        hidden_size=hidden_size,
        layers=layers,
        heads=32,
        kv_heads=4,
        head_dim=128,
        experts=128,
        top_k=8,
        expert_size=768,
        vocab_size=151_936,
    )


@pytest.mark.parametrize(
    ("hidden_size", "layers", "total", "active"),
    [
        (256, 6, 545e6, 100e6),
        (384, 9, 1e9, 190e6),
        (512, 12, 2e9, 280e6),
        (640, 15, 3e9, 400e6),
        (768, 18, 4e9, 530e6),
        (1280, 30, 12e9, 1.3e9),
    ],
)
def test_params_are_those_of_table_1(hidden_size: int, layers: int, total: float, active: float) -> None:
    """The paper does not say whether its active parameters include the embedding: its numbers lie between."""
    spec = paper(hidden_size, layers)
    assert spec.params("total") == pytest.approx(total, rel=0.17)
    assert spec.params("active") - 151_936 * hidden_size < active < spec.params("active")
    assert spec.params("non_embedding") == spec.params("total") - 2 * 151_936 * hidden_size


def test_the_smallest_model_has_six_layers() -> None:
    assert round(paper(256, 6).params() / 1e6) == 545
    assert round(paper(256, 3).params() / 1e6) == 311


def test_flops_are_near_six_per_active_weight() -> None:
    spec = paper(1280, 30)
    weights = spec.params("active") - 151_936 * 1280
    assert 6 * weights < spec.flops_per_token(4096) < 6 * weights * 1.8
    assert spec.flops_per_token(8192) - spec.flops_per_token(4096) == pytest.approx(3 * 30 * 2 * 4096 * 32 * 128)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kv_heads": 3}, "heads=4 is not a multiple of kv_heads=3"),
        ({"top_k": 5}, "top_k=5 is above experts=4"),
        ({"head_dim": 7}, "head_dim=7 is odd"),
        ({"dense_layers": 1}, "give both"),
        ({"dense_layers": 3, "dense_size": 8}, "dense_layers=3 is above layers=2"),
        ({"hiden_size": 3}, "hiden_size"),
        ({"layers": 0}, "layers"),
        ({"top_k": 0}, r"top_k is missing or 0: 2 of 2 layers have experts, which need experts, top_k, expert_size"),
        ({"experts": 0, "top_k": 0, "expert_size": 0}, "a dense model has dense_size in place of all three"),
        ({"experts": 0, "top_k": 0, "expert_size": 0, "dense_size": 48, "balance": "bias"}, "this one is dense"),
        ({"experts": 0, "top_k": 0, "expert_size": 0, "dense_size": 48, "dense_layers": 1}, "1 of 2 layers have exp"),
    ],
)
def test_impossible_models_are_refused(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSpec(**(MODEL.model_dump() | change))


def test_a_model_without_experts_is_dense_in_all_layers() -> None:
    shape = {key: value for key, value in MODEL.model_dump().items() if key not in ("experts", "top_k", "expert_size")}
    dense = ModelSpec(**(shape | {"dense_size": 48}))
    assert (dense.dense_layers, dense.moe_layers) == (2, 0)
    assert dense == ModelSpec(**(shape | {"dense_size": 48, "dense_layers": 2, "experts": 0}))
    h, heads = dense.hidden_size, dense.head_dim * (dense.heads + dense.kv_heads)
    layer = 2 * h * heads + 2 * dense.head_dim + 3 * h * 48 + 2 * h
    assert dense.params() == dense.params("active") == 2 * layer + h + 2 * 400 * h
    assert dense.params("non_embedding") == 2 * layer + h
    scores = 2 * 2 * (64 + 1) * dense.heads * dense.head_dim
    assert dense.flops_per_token(64) == 3 * (2 * (2 * (2 * h * heads + 3 * h * 48) + 400 * h) + scores)
