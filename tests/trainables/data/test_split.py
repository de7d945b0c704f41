from hypothesis import given
from hypothesis import strategies as st

from raylr.trainables.data.split import GAP, parts_of, same_text

TEXTS = st.text(st.sampled_from("ab \n学"), min_size=1, max_size=300)
FRACTIONS = st.floats(0.01, 0.99)


@given(TEXTS, FRACTIONS, st.integers(0, 5))
def test_a_whole_document_is_on_one_side(text: str, fraction: float, seed: int) -> None:
    for side in (None, "train", "validation"):
        assert parts_of(text, "own", side, seed, fraction) == ([(side or "train", text)], 0)
    parts, gap = parts_of(text, "documents", "validation", seed, fraction)
    assert [part for _, part in parts] == [text]
    assert gap == 0
    more, _ = parts_of(text, "documents", None, seed, min(1.0, fraction + 0.2))
    assert not (parts[0][0] == "validation" and more[0][0] == "train")  # a larger fraction keeps what a smaller has


@given(TEXTS, FRACTIONS)
def test_a_cut_document_is_its_beginning_a_gap_and_its_end(text: str, fraction: float) -> None:
    parts, gap = parts_of(text, "within", None, 0, fraction)
    by_side = dict(parts)
    train, validation = by_side.get("train", ""), by_side.get("validation", "")
    assert text.startswith(train)
    assert text.endswith(validation)
    assert len(train) + gap + len(validation) == len(text)
    assert 0 <= gap <= max(len(text) - len(train), 1)


def test_the_gap_is_a_tenth_of_the_validation_part_at_most_a_sequence() -> None:
    for length in (1000, 10**6):
        parts, gap = parts_of("学" * length, "within", None, 0, 0.2)
        assert gap == min(GAP, length // 50)
        assert [len(part) for _, part in parts] == [length * 8 // 10, length * 2 // 10 - gap]


@given(st.lists(st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1), min_size=1, max_size=5))
def test_white_space_does_not_make_another_document(words: list[str]) -> None:
    assert same_text(" ".join(words)) == same_text("\n" + "\r\n\t".join(words) + " ")
    assert same_text(" ".join(words)) != same_text(" ".join([*words, "more"]))
