"""The tokenizer of a corpus: trained or given, and the tokens around a document.

A tokenizer.json may put tokens in front of every text (BOS) and behind it. A corpus stores documents as
BOS + text + EOS with the BOS that its tokenizer has, and saves the tokenizer so that it adds the same in front of a
text and nothing behind it: what is exported and evaluated sees what was trained. Special tokens inside a
text are text.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raylr.errors import DataError, first_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EOS = "<|endoftext|>"
KNOWN_EOS = (EOS, "</s>", "<eos>", "<|end_of_text|>", "<|eot_id|>", "<|im_end|>", "[SEP]")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A tokenizer with the tokens around a document."""

    tokenizer: Tokenizer
    """Encodes texts; special tokens in them are text."""
    eos_id: int
    """Token that ends every document."""
    prefix: tuple[int, ...] = ()
    """Tokens in front of every document, as the tokenizer has them: () or its BOS."""

    @property
    def size(self) -> int:
        """Number of ids that a model needs: the largest id and one, also where the ids have gaps."""
        return vocabulary_size(self.tokenizer)

    def save(self, file: Path) -> None:
        """Write the tokenizer so that it adds `prefix` to a text, and nothing behind it."""
        from tokenizers import Tokenizer

        copy = Tokenizer.from_str(self.tokenizer.to_str())
        if tokens_around(copy) != (self.prefix, ()):
            set_prefix(copy, self.prefix)
        copy.save(str(file))


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """Return the largest id of a tokenizer plus one."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def tokens_around(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that a tokenizer puts in front of a text and behind it."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    for first in range(len(whole) - len(plain) + 1):
        if whole[first : first + len(plain)] == plain:
            return tuple(whole[:first]), tuple(whole[first + len(plain) :])
    raise DataError("the tokenizer changes a text when it adds special tokens: its post-processor is not supported")


def set_prefix(tokenizer: Tokenizer, prefix: tuple[int, ...]) -> None:
    """Make a tokenizer add these ids in front of a text, and nothing else."""
    from tokenizers import processors

    tokens = [tokenizer.id_to_token(token) for token in prefix]
    names = [(token, number) for token, number in zip(tokens, prefix, strict=True)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*tokens, "$A"], pair=[*tokens, "$A", "$B"], special_tokens=names
    )


def train_tokenizer(sample: list[str], vocab_size: int) -> Vocabulary:
    """Train a byte-level BPE.

    Args:
        sample: Texts to train on.
        vocab_size: Its number of tokens.

    Raises:
        DataError: If the vocabulary is too small, or larger than the text yields.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size <= len(alphabet):
        raise DataError(f"vocab_size={vocab_size} is too small: 256 bytes and the end-of-document token need 257")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(sample, trainer)
    if tokenizer.get_vocab_size() < vocab_size:
        raise DataError(
            f"the text yields a vocabulary of {tokenizer.get_vocab_size()} at most, not vocab_size={vocab_size}: "
            "use more text or a smaller vocabulary"
        )
    return _vocabulary(tokenizer)


def read_tokenizer(file: Path) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json as it is.

    Raises:
        DataError: If it cannot be read.
    """
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more specific
        raise DataError(f"{file} is not a tokenizer.json of Hugging Face's tokenizers ({first_line(error)})") from None


def load_tokenizer(
    file: Path, vocab_size: int | None = None, eos_token: str | None = None, eos_id: int | None = None
) -> Vocabulary:
    """Read a tokenizer.json.

    Args:
        file: The file.
        vocab_size: Largest vocabulary that is accepted.
        eos_token: End-of-document token; None: what the tokenizer puts behind a text, or one of the usual names.
        eos_id: The same by its id.

    Raises:
        DataError: If it is not a tokenizer, too large, or has no such token.
    """
    tokenizer = read_tokenizer(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    size = vocabulary_size(tokenizer)
    if vocab_size is not None and vocab_size < size:
        raise DataError(f"vocab_size={vocab_size} is below the {size} tokens of {file}")
    if eos_id is not None and tokenizer.id_to_token(eos_id) is None:
        raise DataError(f"eos_id={eos_id}: {file} has no such token")
    return _vocabulary(tokenizer, eos_token, eos_id)


def tokenizer_file(tokenizer: str | Path) -> Path:
    """Return the tokenizer.json that a path means: itself, or the one in a folder."""
    path = Path(tokenizer)
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(
            f"tokenizer {path}: no such file (a tokenizer.json of Hugging Face's tokenizers, or its folder)"
        )
    return file


def _vocabulary(tokenizer: Tokenizer, eos_token: str | None = None, eos_id: int | None = None) -> Vocabulary:
    prefix, suffix = tokens_around(tokenizer)
    eos = _eos_id(tokenizer, eos_token, suffix) if eos_id is None else eos_id
    tokenizer.encode_special_tokens = True
    return Vocabulary(tokenizer=tokenizer, eos_id=eos, prefix=prefix)


def _eos_id(tokenizer: Tokenizer, eos_token: str | None, suffix: tuple[int, ...]) -> int:
    if eos_token is None and suffix:
        return suffix[-1]
    for token in [eos_token] if eos_token is not None else KNOWN_EOS:
        found = tokenizer.token_to_id(token)
        if found is not None:
            return int(found)
    raise DataError(
        f"the tokenizer has no end-of-document token ({eos_token or ', '.join(KNOWN_EOS)}): name one as eos_token"
    )
