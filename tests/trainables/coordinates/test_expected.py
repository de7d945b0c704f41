import math

import pytest

from raylr.analysis.coordinates import OBSERVABLES
from raylr.trainables.coordinates.expected import expected_slope
from raylr.trainables.models.parametrization import Parametrization, parametrization

CDP = parametrization("completed_p")


def ends(*arguments, **options):
    found = expected_slope(*arguments, **options)
    return found.low, found.high


@pytest.mark.parametrize("rule", [parametrization("standard"), parametrization("mup"), CDP, None])
def test_over_width_everything_keeps_its_size_but_what_an_output_matrix_gives(rule):
    """The yardstick is what transfer needs: the same for a rule that does not do it."""
    for observable in {*OBSERVABLES} - {"logits"}:
        assert ends(rule, "width", observable, 0) == ends(rule, "width", observable, 4) == (0, 0)
    assert ends(rule, "width", "logits", 0) == (-0.5, -0.5)
    assert ends(rule, "width", "logits", 1) == (-0.5, 0)


@pytest.mark.parametrize(
    ("option", "initial"), [("hidden", 0.0), ("output", -0.5), ("logit_multiplier", -0.5), ("plain", 0.0)]
)
def test_the_router_is_what_the_rule_makes_it(option, initial):
    rule = parametrization("completed_p", router=option)
    assert ends(rule, "width", "router_logits", 0) == (initial, initial)
    assert ends(rule, "width", "router_logits", 4) == (initial, 0)


@pytest.mark.parametrize("alpha", [0.5, 0.75, 1.0])
def test_over_depth_what_blocks_add_shrinks_by_the_residual_multiplier(alpha):
    rule = parametrization("completed_p", alpha=alpha)
    for observable in ("attention_outputs", "mlp_outputs", "layer_outputs"):
        assert ends(rule, "depth", observable, 0) == (-alpha, -alpha)
        assert ends(rule, "depth", observable, 4) == (-1, -alpha)
    assert ends(rule, "depth", "residual_stream", 0) == (0.5 - alpha, 0)
    assert ends(rule, "depth", "residual_stream", 4) == ends(rule, "depth", "logits", 4) == (-0.5, 0)
    assert ends(rule, "depth", "logits", 0) == ends(rule, "depth", "embeddings", 4) == (0, 0)


def test_over_depth_a_rule_without_one_is_held_to_what_transfers():
    assert ends(parametrization("mup"), "depth", "mlp_outputs", 0) == (-1, -0.5)
    assert ends(None, "depth", "residual_stream", 0) == (-0.5, 0)


def test_the_last_layer_of_a_deeper_network_has_a_larger_share_of_layers_before_it():
    low, high = ends(CDP, "depth", "attention_logits", 4, layers=[2, 4, 8])
    assert (low, high) == (-0.5, pytest.approx(math.log((7 / 8) / (1 / 2)) / math.log(4)))
    assert ends(CDP, "depth", "attention_logits", 0, layers=[2, 4, 8]) == (0, 0)
    assert ends(CDP, "depth", "logits", 4, layers=[2, 4, 8]) == (-0.5, 0)
    assert ends(CDP, "depth", "router_logits", 4, layers=[100, 200])[1] < 0.01
    assert ends(CDP, "depth", "router_logits", 4, layers=[1, 2, 4])[1] == 0.5


def test_over_tokens_changes_have_the_exponent_of_the_lr():
    assert ends(CDP, "tokens", "embeddings", 1) == (-0.5, -0.5)
    assert ends(CDP, "tokens", "mlp_outputs", 1) == (-0.5, -0.25)  # routing flips
    assert ends(CDP, "tokens", "mlp_outputs", 0) == (0, 0)
    assert ends(parametrization("mup"), "tokens", "logits", 1) == (0, 0)
    own = Parametrization.from_dict({"name": "own", "terms": [
        {"quantity": "lr", "roles": ["lm_head"], "tokens": -0.3, "source": "own"}]})  # fmt: skip
    assert ends(own, "tokens", "logits", 1) == (-0.3, 0)
