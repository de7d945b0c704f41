"""Models as OpenCompass's base models: loaded strictly, and scored in one forward pass a question.

`opencompass_driver` and `lm_eval_driver` use it, each in its own environment; nothing of raylr is imported.

The four prompts of a question differ in their last letter alone. OpenCompass lets the model read all four whole and
compares the mean losses of all their tokens. Where a tokenizer writes every letter as one token, the losses before it
are the same four times, so that the letters' log-probabilities after the shared part decide; one forward pass has all
four. Where it does not, the four prompts are read one by one, as OpenCompass does.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LETTERS = "ABCD"
PROBE = "Which bone, of 12,\n\tis  the hip's?\nA. 题目：解剖学\nAnswer: B"
"""A text by which a tokenizer is compared with its file."""


def load_strictly(path: str, tokenizer: Any, *, device: str, dtype: str) -> Any:
    """Load a causal language model of Hugging Face's for greedy use.

    Raises ValueError for an architecture that this transformers does not know, for weights that are missing, too many
    or of another shape (transformers would leave the model's random ones), and for a tokenizer larger than the
    vocabulary.

    Args:
        path: Folder of the model.
        tokenizer: Its tokenizer.
        device: "cpu", or another name of torch's.
        dtype: Name of a type of torch's.
    """
    transformers = importlib.import_module("transformers")
    torch = importlib.import_module("torch")
    check_architecture(path)
    placed = {} if device == "cpu" else {"device_map": device}
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        path,
        output_loading_info=True,
        torch_dtype=getattr(torch, dtype),
        weights_only=True,  # a pickle's code is not run
        trust_remote_code=False,
        **placed,
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report.get(kind):
            names = sorted(str(key) for key in report[kind])
            raise ValueError(
                f"{len(names)} weights of the model in {path} are {kind.removesuffix('_keys')}, as {names[0]}"
            )
    rows, tokens = model.get_input_embeddings().weight.shape[0], len(tokenizer)
    if tokens > rows:
        raise ValueError(f"the tokenizer in {path} has {tokens} tokens and the model's vocabulary {rows}")
    model.eval()
    model.generation_config.do_sample = False
    return model


def load_tokenizer(path: str) -> Any:
    """Load a folder's tokenizer for prompts that are padded and cut on the left.

    tokenizer.json decides where there is one. For some architectures (qwen2) transformers 5 takes the class of their
    own tokenizers instead of the folder's, which reads another tokenizer's vocabulary in its own way.
    """
    transformers = importlib.import_module("transformers")
    sides = {"padding_side": "left", "truncation_side": "left"}
    tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False, **sides)
    file = Path(path) / "tokenizer.json"
    if file.is_file():
        plain = importlib.import_module("tokenizers").Tokenizer.from_file(str(file))
        wanted = plain.encode(PROBE, add_special_tokens=False).ids
        if tokenizer(PROBE, add_special_tokens=False)["input_ids"] != wanted:
            return transformers.PreTrainedTokenizerFast.from_pretrained(path, **sides)
    return tokenizer


def check_architecture(path: str) -> None:
    """Raise ValueError if this transformers has no causal language model for a folder's `model_type`."""
    transformers = importlib.import_module("transformers")
    auto = importlib.import_module("transformers.models.auto.modeling_auto")
    found, _ = transformers.PretrainedConfig.get_config_dict(path)
    kind = found.get("model_type")
    if kind not in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ValueError(
            f"transformers {transformers.__version__} has no causal language model of the architecture {kind!r}"
        )


def context_of(config: Any) -> int | None:
    """Return the longest sequence that a model's configuration allows, None if it names none."""
    for name in ("max_position_embeddings", "n_positions", "max_seq_len"):
        length = getattr(config, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return None


def register(name: str, *, one_pass: bool) -> None:
    """Register the model class `name` with OpenCompass: its Hugging Face model for base models, with three differences.

    OpenCompass's own takes a model without a language-modelling head when transformers finds none, and leaves weights
    random that are not in the folder; both would be scored. It pads prompts on the left, which moves the positions of
    models with learned ones. And it reads each question four times.

    Args:
        name: Of the class.
        one_pass: Whether a question is read once where that gives the same answer.
    """
    base: Any = importlib.import_module("opencompass.models").HuggingFaceBaseModel
    models: Any = importlib.import_module("opencompass.registry").MODELS
    models.register_module(name=name, module=_model_class(base, one_pass))


def _model_class(base: Any, one_pass: bool) -> Any:
    class LetterModel(base):  # type: ignore[misc]  # no types
        max_seq_len: int

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            limit: int = self.max_seq_len
            self.max_seq_len = min(limit, context_of(self.model.config) or limit)
            self.forget()

        def _load_tokenizer(self, path: str, kwargs: dict[str, Any], pad_token_id: int | None = None) -> None:
            self.tokenizer = load_tokenizer(path)
            self.tokenizer.model_input_names = ["input_ids", "attention_mask"]  # generation refuses token types
            if self.tokenizer.pad_token_id is None:  # any token does: what is padded is masked
                self.tokenizer.pad_token_id = self.tokenizer.eos_token_id or 0
            if not hasattr(self.tokenizer, "batch_encode_plus"):  # transformers 5 has removed it
                self.tokenizer.batch_encode_plus = self.tokenizer.__call__

        def _load_model(self, path: str, kwargs: dict[str, Any], **unused: Any) -> None:
            dtype = kwargs["torch_dtype"].removeprefix("torch.")
            self.model = load_strictly(path, self.tokenizer, device=kwargs["device_map"], dtype=dtype)

        def forget(self) -> None:
            """Forget the prompts of a portion that was scored."""
            self.tokens: dict[str, list[int]] = {}
            self.losses: dict[str, tuple[float, int]] = {}

        def ids(self, text: str) -> list[int]:
            """Return the tokens of a prompt, each tokenised once a portion."""
            if text not in self.tokens:
                self.tokens[text] = self.tokenizer(text)["input_ids"]
            return self.tokens[text]

        def get_token_len(self, prompt: str, add_special_tokens: bool = True) -> int:
            if not add_special_tokens:
                return int(super().get_token_len(prompt, add_special_tokens))
            return len(self.ids(prompt))

        def divisor(self, prompt: str) -> int:
            """Return what the loss of a prompt was divided by to give its "PPL"."""
            return self.losses[prompt][1]

        def get_ppl(self, inputs: list[str], mask_length: list[int] | None = None) -> Any:
            numpy = importlib.import_module("numpy")
            if mask_length is not None:
                return super().get_ppl(inputs, mask_length)
            texts = [str(text) for text in inputs]
            unknown = [text for text in texts if text not in self.losses]
            shared = {text: self._before_the_letter(text) for text in unknown} if one_pass else {}
            self._read_once({text: ids for text, ids in shared.items() if ids})
            whole = [text for text in unknown if text not in self.losses]
            if whole:
                self.tokenizer.padding_side = "right"
                counts = [self._count(text) for text in whole]
                losses = super().get_ppl(whole)
                self.losses |= zip(whole, zip(map(float, losses), counts, strict=True), strict=True)
            return numpy.array([self.losses[text][0] for text in texts])

        def _count(self, text: str) -> int:
            ids = self.ids(text)[-self.max_seq_len :]
            return sum(token != self.tokenizer.pad_token_id for token in ids)

        def _before_the_letter(self, text: str) -> list[int]:
            """Return the tokens that a question's four prompts share, all but the last; [] if they do not."""
            if text[-1:] not in LETTERS:
                return []
            options = [self._cut(text[:-1] + letter) for letter in LETTERS]
            return options[0][:-1] if len({tuple(ids[:-1]) for ids in options}) == 1 else []

        def _cut(self, text: str) -> list[int]:
            ids = self.ids(text)
            if len(ids) <= self.max_seq_len:
                return ids
            return list(self.tokenizer(text, truncation=True, max_length=self.max_seq_len)["input_ids"])

        def _read_once(self, shared: dict[str, list[int]]) -> None:
            """Compute the losses of the four letters after each text's shared tokens, in one forward pass."""
            if not shared:
                return
            rows = next_token_log_probs(self.model, list(shared.values()), self.tokenizer.pad_token_id)
            for text, row in zip(shared, rows, strict=True):
                for letter in LETTERS:
                    option = text[:-1] + letter
                    self.losses[option] = -float(row[self.ids(option)[-1]]), 1

    return LetterModel


def next_token_log_probs(model: Any, sequences: Sequence[Sequence[int]], pad: int) -> Any:
    """Return the log-probabilities of the token that follows each sequence.

    Sequences are padded on the right, which a causal model does not see and which moves no position.

    Args:
        model: A causal language model of Hugging Face's.
        sequences: Tokens.
        pad: The token that fills shorter ones up.

    Returns:
        Tensor (sequences, vocabulary), nats, float64.
    """
    torch = importlib.import_module("torch")
    last = torch.tensor([len(ids) - 1 for ids in sequences])
    longest = int(last.max()) + 1
    ids = torch.tensor([[*ids, *[pad] * (longest - len(ids))] for ids in sequences])
    mask = (torch.arange(longest) <= last[:, None]).long()
    wanted, row_of = last.unique(return_inverse=True)
    # not the logits of all positions, which for a large vocabulary take longer than the layers
    some = {"logits_to_keep": wanted} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    with torch.no_grad():
        logits = model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), use_cache=False, **some)[0]
    rows = torch.arange(len(sequences), device=logits.device)
    places = (row_of if some else last).to(logits.device)
    return logits[rows, places].double().log_softmax(-1).cpu()
