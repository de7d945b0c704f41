import csv

import pytest
from shared_data import DATA

from raylr.analysis.scores.suites import SUITES, Subject, resolve


@pytest.mark.parametrize(
    ("name", "subjects", "questions", "categories"), [("mmlu", 57, 14042, 4), ("cmmlu", 67, 11582, 5)]
)
def test_the_full_sets(name, subjects, questions, categories):
    suite = SUITES[name]
    assert len(suite.subjects) == len(set(suite.subjects)) == subjects
    assert suite.size == questions
    assert len(suite.categories) == categories


@pytest.mark.parametrize("name", SUITES)
def test_every_subject_has_a_category_and_every_category_subjects(name):
    suite = SUITES[name]
    of_all = [subject for subjects in suite.categories.values() for subject in subjects]
    assert set(of_all) == set(suite.test_questions)


def test_only_the_chinese_label_overlaps_other_categories():
    assert sum(map(len, SUITES["mmlu"].categories.values())) == 57
    cmmlu = dict(SUITES["cmmlu"].categories)
    chinese = set(cmmlu.pop("China specific"))
    assert sum(map(len, cmmlu.values())) == 67
    assert {"ancient_chinese", "chinese_history", "ethnology", "modern_chinese"} <= chinese


def test_published_members_of_categories():
    """CMMLU's paper, Appendix A, and OpenCompass's groups."""
    assert "marxist_theory" in SUITES["cmmlu"].categories["Humanities"]
    assert "college_medical_statistics" in SUITES["cmmlu"].categories["STEM"]
    assert "professional_law" in SUITES["mmlu"].categories["Humanities"]
    assert "marketing" in SUITES["mmlu"].categories["Other"]


@pytest.mark.skipif(not (DATA / "mmlu").is_dir(), reason=f"no questions in {DATA}: set RAYLR_DATA")
def test_counts_are_those_of_the_files():
    checked = 0
    for suite in SUITES.values():
        for subject, count in suite.test_questions.items():
            name = f"{subject}_test.csv" if suite.name == "mmlu" else f"{subject}.csv"
            path = DATA / suite.name / "test" / name
            if path.is_file():
                rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines(keepends=True)))
                assert len(rows) - (suite.name == "cmmlu") == count, path
                checked += 1
    assert checked


def test_names_are_resolved_in_order_each_once():
    assert len(resolve(["mmlu", "cmmlu"])) == 124
    found = resolve(["cmmlu", "mmlu"], ["anatomy", "mmlu/virology", "anatomy"])
    assert found == [Subject("cmmlu", "anatomy"), Subject("mmlu", "anatomy"), Subject("mmlu", "virology")]
    assert [str(subject) for subject in found] == ["cmmlu/anatomy", "mmlu/anatomy", "mmlu/virology"]


@pytest.mark.parametrize(
    ("suites", "subjects", "message"),
    [
        (["mmul"], None, "unknown suite 'mmul'; did you mean 'mmlu'"),
        ([], None, "name at least one suite of mmlu, cmmlu"),
        (["mmlu"], [], "the list of subjects is empty"),
        (["mmlu"], ["anatmy"], "no subject 'anatmy' in MMLU; nearest: anatomy"),
        (
            ["mmlu"],
            ["cmmlu/genetics"],
            "cmmlu/genetics is of CMMLU, which is not among the suites: add cmmlu",
        ),
        (["mmlu"], ["cmmlu/genetic"], "no subject 'cmmlu/genetic' in MMLU"),
        (["mmlu", "cmmlu"], ["ancient_chineese"], "in MMLU or CMMLU; nearest: ancient_chinese"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(suites, subjects, message):
    with pytest.raises(ValueError, match=message):
        resolve(suites, subjects)
