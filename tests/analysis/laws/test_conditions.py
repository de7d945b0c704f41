import math

import pytest

from raylr.analysis.laws.conditions import Conditions
from raylr.errors import InputError


def test_only_what_both_know_can_differ():
    runs = Conditions(batch_tokens=4e6, schedule="Constant", warmup_tokens=1e9)
    assert runs.differences(Conditions(schedule="constant", beta1=0.9)) == []
    assert runs.differences(Conditions(batch_tokens=4.01e6)) == []
    assert runs.differences(Conditions(batch_tokens=5e6, warmup_tokens=0)) == [
        "batch 5M tokens (runs of the law: 4M tokens)", "warmup 0 tokens (runs of the law: 1B tokens)",
    ]  # fmt: skip


def test_common_conditions_are_those_that_all_share():
    a, b = Conditions(batch_tokens=4e6, schedule="wsd"), Conditions(batch_tokens=8e6, schedule="wsd", beta1=0.9)
    assert Conditions.common([a, b]) == Conditions(schedule="wsd")
    assert Conditions.common([]) == Conditions()


@pytest.mark.parametrize(
    "wrong",
    [{"batch_tokens": -1}, {"beta2": math.nan}, {"warmup_tokens": math.inf}, {"seq_len": True}, {"schedule": 3},
     {"optimizer": " "}, {"objective": "cooled"}, {"weight_decay": "0.1"}],
)  # fmt: skip
def test_what_no_run_has_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Conditions(**wrong)
