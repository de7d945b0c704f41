import torch

from raylr.trainables.models.balance import balance_losses


def test_each_layers_balance_is_seen_where_the_pooled_one_hides_it() -> None:
    """Two layers that send all tokens to one expert each, not the same: together every expert has its share."""
    loads = torch.tensor([[10.0, 0.0], [0.0, 10.0]])
    pooled, layers = balance_losses(loads, loads, 10)
    assert (float(pooled), float(layers)) == (1.0, 2.0)
    even = torch.tensor([[5.0, 5.0], [5.0, 5.0]])
    assert [float(loss) for loss in balance_losses(even, even, 10)] == [1.0, 1.0]
