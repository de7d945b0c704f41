import math

import torch

from raylr.trainables.training.probing.router import TOKENS, read_router, summary, top_k_of


def test_logits_probabilities_and_choices_are_recognised() -> None:
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    probs, choice = logits.softmax(-1), logits.topk(2, -1).indices
    biased = (logits + torch.tensor([9.0, 0, 0, 0])).topk(2, -1).indices
    for out in (logits, (logits, choice), (probs, probs.gather(-1, choice), choice), logits.view(5, 10, 4)):
        log_probs, chosen = read_router(out, 4, 2)
        assert log_probs is not None
        torch.testing.assert_close(log_probs, probs.log())
        assert chosen is not None
        assert torch.equal(chosen.sort().values, choice.sort().values)
    assert torch.equal(read_router((probs, choice.float(), biased), 4, 2)[1], biased)  # what was chosen
    assert read_router(logits, 4, None)[1] is None
    assert read_router((torch.randn(50, 3), choice), 4, 2) == (None, None)
    assert len(read_router(torch.randn(TOKENS + 5, 4), 4, 1)[0]) == TOKENS


def test_entropy_and_margin() -> None:
    log_probs = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log()
    entropy, margin = summary(log_probs, torch.tensor([[0, 1]])).tolist()
    assert abs(entropy + sum(p * math.log(p) for p in (0.4, 0.3, 0.2, 0.1))) < 1e-6
    assert abs(margin - math.log(0.3 / 0.2)) < 1e-6
    assert math.isnan(summary(log_probs, torch.arange(4)[None])[1])


def test_the_number_of_experts_of_a_token_is_read_from_a_configuration() -> None:
    network = torch.nn.Module()
    assert top_k_of(network) is None
    network.network = torch.nn.Module()
    network.network.config = type("C", (), {"num_experts_per_tok": 8})()
    assert top_k_of(network) == 8
