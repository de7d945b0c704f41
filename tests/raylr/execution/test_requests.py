"""What trials request, by their sizes."""

import pytest
import yaml
from made_study import SPEC
from pydantic import ValidationError

from raylr.execution.requests import trial_requests
from raylr.spec import StudySpec


def spec_with(**resources):
    return StudySpec.model_validate({**yaml.safe_load(SPEC), "resources": resources})


def test_a_size_of_its_own_takes_what_it_does_not_say_from_the_others():
    usual, sizes = trial_requests(spec_with(cpus=2, gpus=0.5, sizes={"M": {"gpus": 1}, "XL": {"cpus": 8}}))
    assert usual == {"CPU": 2, "GPU": 0.5}
    assert sizes == {"M": {"CPU": 2, "GPU": 1}, "XL": {"CPU": 8, "GPU": 0.5}}


def test_a_name_that_is_no_size_is_refused():
    with pytest.raises(ValidationError, match=r"resources\.sizes: 'N' is neither a size nor a target"):
        spec_with(sizes={"N": {"cpus": 2}})
