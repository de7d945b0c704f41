import numpy as np
import pytest
import torch
from torch import nn

from raylr.errors import InputError
from raylr.trainables.coordinates.subject import batch_ids, language_model, made_ids


def test_the_made_up_language_has_structure_and_depends_on_its_seed_alone():
    one, other = made_ids(64, 8, 50, 1), made_ids(64, 8, 50, 2)
    assert one.shape == (8, 51)
    assert one.min() >= 0
    assert one.max() < 64
    assert (one == made_ids(64, 8, 50, 1)).all()
    assert (one != other).any()
    counts = np.bincount(one.ravel(), minlength=64)
    assert counts[:8].sum() > counts[8:].sum() / 2  # frequent words are frequent
    pairs = {}
    for a, b in zip(one[:, :-1].ravel(), one[:, 1:].ravel(), strict=True):
        pairs.setdefault(int(a), []).append(int(b))
    often = max(pairs.values(), key=len)
    top = np.sort(np.bincount(often, minlength=64))[::-1]
    assert top[:4].sum() > 0.5 * len(often)  # a word has few usual successors


def test_a_batch_of_a_corpus(corpus):
    ids = batch_ids(corpus.path, 400, 2, 8, 0)
    assert ids.shape == (2, 9)
    assert (ids != batch_ids(corpus.path, 400, 2, 8, 1)).any()
    with pytest.raises(InputError, match="400 token ids and the model 64"):
        batch_ids(corpus.path, 64, 2, 8, 0)


def test_any_module_from_ids_to_logits_is_a_language_model():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 16))
    subject = language_model(model, made_ids(16, 2, 8, 0))
    assert subject.forward(model).shape == (2, 8, 16)
    loss = subject.loss(model)
    assert loss.shape == ()
    loss.backward()
    assert model[0].weight.grad is not None
