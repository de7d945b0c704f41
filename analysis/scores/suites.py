"""MMLU and CMMLU: their subjects, categories and the sizes of the full sets.

Subjects and categories are OpenCompass's (0.5.4, `configs/summarizers/groups/mmlu.py` and `cmmlu.py`), which counts
anatomy under STEM where the benchmark's authors have it under "health" in Other. CMMLU's "China specific" is a second
label of subjects that have another category too: its five categories overlap, MMLU's four do not.

Test questions a subject: MMLU from the weights in OpenCompass's `mmlu.py` (sum 14,042), CMMLU from the statistics in
EvalScope's documentation (docs/zh/benchmarks/cmmlu.md, sum 11,582).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from raylr.analysis._checks import one_of
from raylr.errors import InputError

LETTERS = ("A", "B", "C", "D")
"""The answers that every question of both suites offers."""

CHANCE = 1 / len(LETTERS)
"""Expected accuracy of a guess."""


@dataclass(frozen=True, order=True)
class Subject:
    """One subject of a suite; `str` is "mmlu/anatomy"."""

    suite: str
    name: str

    def __str__(self) -> str:
        return f"{self.suite}/{self.name}"


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A multiple-choice benchmark with four letters to choose from."""

    name: str
    title: str
    """As papers write it."""
    categories: Mapping[str, tuple[str, ...]]
    """Category -> its subjects; a subject may have several."""
    test_questions: Mapping[str, int]
    """Subject -> number of test questions in the full set."""

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All subjects, by name."""
        return tuple(Subject(self.name, name) for name in sorted(self.test_questions))

    @cached_property
    def size(self) -> int:
        """Test questions of the full set."""
        return sum(self.test_questions.values())


_MMLU: Mapping[str, Mapping[str, int]] = {
    "STEM": {
        "abstract_algebra": 100,
        "anatomy": 135,
        "astronomy": 152,
        "college_biology": 144,
        "college_chemistry": 100,
        "college_computer_science": 100,
        "college_mathematics": 100,
        "college_physics": 102,
        "computer_security": 100,
        "conceptual_physics": 235,
        "electrical_engineering": 145,
        "elementary_mathematics": 378,
        "high_school_biology": 310,
        "high_school_chemistry": 203,
        "high_school_computer_science": 100,
        "high_school_mathematics": 270,
        "high_school_physics": 151,
        "high_school_statistics": 216,
        "machine_learning": 112,
    },
    "Humanities": {
        "formal_logic": 126,
        "high_school_european_history": 165,
        "high_school_us_history": 204,
        "high_school_world_history": 237,
        "international_law": 121,
        "jurisprudence": 108,
        "logical_fallacies": 163,
        "moral_disputes": 346,
        "moral_scenarios": 895,
        "philosophy": 311,
        "prehistory": 324,
        "professional_law": 1534,
        "world_religions": 171,
    },
    "Social Sciences": {
        "econometrics": 114,
        "high_school_geography": 198,
        "high_school_government_and_politics": 193,
        "high_school_macroeconomics": 390,
        "high_school_microeconomics": 238,
        "high_school_psychology": 545,
        "human_sexuality": 131,
        "professional_psychology": 612,
        "public_relations": 110,
        "security_studies": 245,
        "sociology": 201,
        "us_foreign_policy": 100,
    },
    "Other": {
        "business_ethics": 100,
        "clinical_knowledge": 265,
        "college_medicine": 173,
        "global_facts": 100,
        "human_aging": 223,
        "management": 103,
        "marketing": 234,
        "medical_genetics": 100,
        "miscellaneous": 783,
        "nutrition": 306,
        "professional_accounting": 282,
        "professional_medicine": 272,
        "virology": 166,
    },
}

_CMMLU: Mapping[str, Mapping[str, int]] = {
    "Humanities": {
        "arts": 160,
        "chinese_history": 323,
        "chinese_literature": 204,
        "college_law": 108,
        "global_facts": 149,
        "international_law": 185,
        "jurisprudence": 411,
        "logical": 123,
        "marxist_theory": 189,
        "philosophy": 105,
        "professional_law": 211,
        "world_history": 161,
        "world_religions": 160,
    },
    "STEM": {
        "anatomy": 148,
        "astronomy": 165,
        "college_actuarial_science": 106,
        "college_engineering_hydrology": 106,
        "college_mathematics": 105,
        "college_medical_statistics": 106,
        "computer_science": 204,
        "conceptual_physics": 147,
        "electrical_engineering": 172,
        "elementary_mathematics": 230,
        "genetics": 176,
        "high_school_biology": 169,
        "high_school_chemistry": 132,
        "high_school_mathematics": 164,
        "high_school_physics": 110,
        "machine_learning": 122,
        "virology": 169,
    },
    "Social Science": {
        "ancient_chinese": 164,
        "business_ethics": 209,
        "chinese_civil_service_exam": 160,
        "chinese_food_culture": 136,
        "chinese_foreign_policy": 107,
        "chinese_teacher_qualification": 179,
        "college_education": 107,
        "economics": 159,
        "education": 163,
        "elementary_chinese": 252,
        "ethnology": 135,
        "high_school_geography": 118,
        "high_school_politics": 143,
        "journalism": 172,
        "management": 210,
        "marketing": 180,
        "modern_chinese": 116,
        "professional_accounting": 175,
        "professional_psychology": 232,
        "public_relations": 174,
        "security_study": 135,
        "sociology": 226,
    },
    "Other": {
        "agronomy": 169,
        "chinese_driving_rule": 131,
        "clinical_knowledge": 237,
        "college_medicine": 273,
        "computer_security": 171,
        "construction_project_management": 139,
        "elementary_commonsense": 198,
        "elementary_information_and_technology": 238,
        "food_science": 143,
        "human_sexuality": 126,
        "legal_and_moral_basis": 214,
        "nutrition": 145,
        "professional_medicine": 376,
        "sports_science": 165,
        "traditional_chinese_medicine": 185,
    },
}

_CHINA_SPECIFIC = (
    "ancient_chinese",
    "chinese_civil_service_exam",
    "chinese_driving_rule",
    "chinese_food_culture",
    "chinese_foreign_policy",
    "chinese_history",
    "chinese_literature",
    "chinese_teacher_qualification",
    "construction_project_management",
    "elementary_chinese",
    "elementary_commonsense",
    "ethnology",
    "high_school_politics",
    "modern_chinese",
    "traditional_chinese_medicine",
)


def _suite(
    name: str, title: str, counts: Mapping[str, Mapping[str, int]], labels: Mapping[str, tuple[str, ...]]
) -> Suite:
    categories = {category: tuple(sorted(subjects)) for category, subjects in counts.items()} | dict(labels)
    questions = {subject: size for subjects in counts.values() for subject, size in subjects.items()}
    return Suite(
        name=name,
        title=title,
        categories=MappingProxyType(categories),
        test_questions=MappingProxyType(questions),
    )


SUITES: Mapping[str, Suite] = MappingProxyType(
    {
        "mmlu": _suite("mmlu", "MMLU", _MMLU, {}),
        "cmmlu": _suite("cmmlu", "CMMLU", _CMMLU, {"China specific": _CHINA_SPECIFIC}),
    }
)


def resolve(suites: Sequence[str], subjects: Iterable[str] | None = None) -> list[Subject]:
    """Return the subjects that these names mean, each once, ordered by suite and name.

    Args:
        suites: Names of suites, such as "mmlu".
        subjects: Names such as "anatomy", which means the subject in each of `suites` that has it, or "cmmlu/anatomy";
            None: all subjects of the suites.

    Raises:
        InputError: A suite or a subject does not exist (the message has the nearest names), or a list is empty.

    Example:
        >>> [str(subject) for subject in resolve(["mmlu", "cmmlu"], ["mmlu/virology", "genetics"])]
        ['mmlu/virology', 'cmmlu/genetics']
    """
    chosen = [SUITES[one_of(name, SUITES, "suite")] for name in dict.fromkeys(suites)]
    if not chosen:
        raise InputError(f"name at least one suite of {', '.join(SUITES)}")
    if subjects is None:
        return [subject for suite in chosen for subject in suite.subjects]
    found: set[Subject] = set()
    for text in subjects:
        of, _, name = text.rpartition("/")
        matches = {
            Subject(suite.name, name) for suite in chosen if of in ("", suite.name) and name in suite.test_questions
        }
        if not matches and of in SUITES and name in SUITES[of].test_questions:
            raise InputError(f"{text} is of {SUITES[of].title}, which is not among the suites: add {of} to them")
        if not matches:
            raise InputError(_unknown(text, chosen))
        found |= matches
    if not found:
        raise InputError("the list of subjects is empty; leave it out for all subjects")
    order = [suite.name for suite in chosen]
    return sorted(found, key=lambda subject: (order.index(subject.suite), subject.name))


def _unknown(text: str, suites: Sequence[Suite]) -> str:
    known = [name for suite in suites for name in suite.test_questions]
    near = difflib.get_close_matches(text.rpartition("/")[2], dict.fromkeys(known), n=3, cutoff=0.5)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    return f"there is no subject {text!r} in {' or '.join(suite.title for suite in suites)}{hint}"
