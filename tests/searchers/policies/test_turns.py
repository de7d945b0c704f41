from hypothesis import given, settings
from hypothesis import strategies as st

from raylr.searchers.policies.turns import Turns

NOTES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 5), st.booleans()), max_size=80)


@given(notes=NOTES)
@settings(max_examples=100)
def test_the_first_is_the_one_that_a_search_through_all_finds(notes):
    turns, wanting = Turns(), dict[str, tuple[int, int]]()
    for place, runs, wants in notes:
        name = f"S{place}"
        turns.note(name, place, runs, wants=wants)
        wanting.pop(name, None)
        if wants:
            wanting[name] = runs, place
        assert turns.first() == min(wanting, key=wanting.__getitem__, default=None)


def test_what_is_out_of_date_is_forgotten():
    turns = Turns()
    for runs in range(1000):
        turns.note("S", 0, runs, wants=True)
        turns.note("L", 1, runs, wants=True)
        turns.first()
    assert len(turns._heap) < 10
