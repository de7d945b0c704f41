from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from raylr.spec import explain


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tokens: int
    kind: Literal["a", "b"] = "a"


class Whole(BaseModel):
    model_config = ConfigDict(extra="forbid")
    part: Part
    budgets: list[int]
    size: int


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"part": {"tokns": 1}, "budgets": [1], "size": 1}, "part.tokns is not a known key; did you mean 'tokens'?"),
        ({"part": {"tokens": 1}, "budget": [1]}, "budget is not a known key; did you mean 'budgets'? (and 1 more)"),
        ({"part": {"tokens": 1}}, "budgets is missing (and 1 more)"),
        ({"part": {"tokens": 1}, "budgets": 3, "size": 1}, "budgets: must be a list, got 3"),
        ({"part": 3, "budgets": [], "size": 1}, "part: must be keys with values (key: value), got 3"),
        ({"part": {"tokens": 1, "kind": "c"}, "budgets": [], "size": 1}, "part.kind: must be 'a' or 'b', got 'c'"),
        ({"part": {"tokens": 1}, "budgets": [1, "x\ny"], "size": 1}, "budgets.1: must be a whole number, got 'x\\ny'"),
    ],
)
def test_the_first_problem_is_one_sentence(data: object, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Whole.model_validate(data)
    assert explain(caught.value, Whole) == sentence
