from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, processors

from raylr.errors import InputError
from raylr.trainables.data.corpus import Corpus
from raylr.trainables.data.tokenizer import load_tokenizer, tokens_around, train_tokenizer, vocabulary_size


@pytest.fixture
def tokenizer(corpus: Corpus) -> Tokenizer:
    return Tokenizer.from_file(str(corpus.tokenizer_path))


def save(tokenizer: Tokenizer, file: Path) -> Path:
    tokenizer.save(str(file))
    return file


def template(tokenizer: Tokenizer, *pattern: str) -> None:
    names = [(name, tokenizer.token_to_id(name)) for name in pattern if name != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=list(pattern), special_tokens=names)


def test_tokens_around_a_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.add_special_tokens(["<s>", "[SEP]"])
    for pattern, around in (
        (("$A",), ((), ())),
        (("<s>", "$A"), ((400,), ())),
        (("<s>", "$A", "[SEP]"), ((400,), (401,))),
        (("$A", "[SEP]"), ((), (401,))),
    ):
        template(tokenizer, *pattern)
        assert tokens_around(tokenizer) == around
        loaded = load_tokenizer(save(tokenizer, tmp_path / "t.json"))
        assert loaded.prefix == around[0]
        assert loaded.eos_id == (401 if around[1] else 0)
        loaded.save(tmp_path / "saved.json")  # a prompt must not end with the end of the document
        assert tokens_around(Tokenizer.from_file(str(tmp_path / "saved.json"))) == (around[0], ())


def test_ids_with_gaps_need_a_larger_vocabulary() -> None:
    """Ids may be scattered: a model needs as many as the largest, not as many as there are tokens."""
    gaps = Tokenizer(models.WordLevel({"a": 0, "b": 7}, unk_token="a"))
    assert gaps.get_vocab_size() == 2
    assert vocabulary_size(gaps) == 8


def test_special_tokens_in_a_text_are_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.add_special_tokens(["<|im_start|>"])
    tokenizer.add_tokens([AddedToken("</s>", special=False)])
    text = "a <|im_start|> b <|endoftext|> c"
    loaded = load_tokenizer(save(tokenizer, tmp_path / "t.json")).tokenizer
    ids = loaded.encode(text, add_special_tokens=False).ids
    assert not {0, 400} & set(ids)
    assert loaded.decode(ids) == text


def test_eos_is_named_or_found(tokenizer: Tokenizer, tmp_path: Path) -> None:
    file = save(tokenizer, tmp_path / "t.json")
    assert load_tokenizer(file, eos_token="def").eos_id == tokenizer.token_to_id("def")
    assert load_tokenizer(file, eos_id=7).eos_id == 7
    for arguments, message in (
        ({"eos_token": "<end>"}, "no end-of-document token"),
        ({"eos_id": 4000}, "eos_id=4000"),
        ({"vocab_size": 300}, "vocab_size=300 is below the 400 tokens"),
    ):
        with pytest.raises(InputError, match=message):
            load_tokenizer(file, **arguments)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match=r"other\.json is not a tokenizer\.json"):
        load_tokenizer(tmp_path / "other.json")


def test_training_is_deterministic(texts: Path) -> None:
    sample = [path.read_text() for path in sorted(texts.iterdir())]
    one, other = (train_tokenizer(sample, 300).tokenizer.to_str() for _ in range(2))
    assert one == other
