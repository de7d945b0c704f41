import json
from pathlib import Path

import datasets
import pytest
from made_ids import write_megatron

from raylr.errors import InputError
from raylr.trainables.data.problems import Problems
from raylr.trainables.data.records import documents
from raylr.trainables.data.sources import Sources, find_sources


def found(*paths: Path) -> tuple[Sources, dict[str, str]]:
    """The files, and what was left out: name -> reason."""
    problems = Problems()
    sources = find_sources(paths, problems)
    return sources, {one.path.name: one.reason for one in problems.all}


def names(sources: Sources) -> dict[str, str | None]:
    return {source.path.name: source.side for source in sources.files}


def write(folder: Path, *files: str) -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"text": file}))
    return folder


def test_files_are_named_or_found(tmp_path: Path) -> None:
    folder = write(tmp_path / "f", "b.txt", "a.txt", ".hidden", ".git/config", "old.zip")
    write(tmp_path, "c.txt")
    sources, left = found(folder, tmp_path / "c.txt", folder / "a.txt")
    assert [(s.path.name, s.named) for s in sources.files] == [("a.txt", False), ("b.txt", False), ("c.txt", True)]
    assert left == {
        ".git": "hidden",
        ".hidden": "hidden",
        "old.zip": "an archive: unpack it",
        "a.txt": "the same file was given twice",
    }
    for path, message in (
        (tmp_path / "none", "there is no "),
        (folder / "old.zip", "is an archive: unpack it"),
        (write(tmp_path / "h", ".x").parent / "h", r"no files with documents in .*1 left out: hidden"),
    ):
        with pytest.raises(InputError, match=message):
            found(path)
    with pytest.raises(InputError, match="no files with documents in an empty list of paths"):
        found()


def test_links_end(tmp_path: Path) -> None:
    folder = write(tmp_path / "f", "a.txt", "b/c.txt")
    (folder / "b" / "up").symlink_to(folder)
    (folder / "gone").symlink_to(tmp_path / "nowhere")
    sources, left = found(folder)
    assert list(names(sources)) == ["a.txt", "c.txt"]
    assert left["up"] == "a link to a folder that holds it"
    assert left["gone"].startswith("no regular file")


def test_a_corpus_inside_the_folder_is_no_text(tmp_path: Path) -> None:
    write(tmp_path, "a.txt", "corpus/manifest.json", "corpus/train.bin", "corpus/tokenizer.json")
    sources, left = found(tmp_path)
    assert list(names(sources)) == ["a.txt"]
    assert left == {"corpus": "a corpus of raylr"}


def test_a_data_set_that_was_saved(tmp_path: Path) -> None:
    rows = [f"row {i}" for i in range(30)]
    splits = {"train": rows[:20], "validation": rows[20:25], "test": rows[25:]}
    whole = datasets.DatasetDict(
        {k: datasets.Dataset.from_dict({"text": v, "n": range(len(v))}) for k, v in splits.items()}
    )
    whole.save_to_disk(tmp_path / "d", num_shards={"train": 3, "validation": 1, "test": 1})
    (tmp_path / "d" / "train" / "cache-123.arrow").write_bytes(b"x")
    sources, left = found(tmp_path / "d")
    texts: dict[str | None, list[str]] = {}
    for source in sources.files:
        texts.setdefault(source.side, []).extend(text for text, _ in documents(source, None, "utf-8", Problems()))
    assert texts == {"train": rows[:20], "validation": rows[20:25]}
    assert left["cache-123.arrow"] == "a cache: the data set's state.json does not name it"
    assert left["data-00000-of-00001.arrow"].startswith("the source's test split")
    assert {"state.json", "dataset_info.json", "dataset_dict.json"} < set(left)
    (tmp_path / "d" / "train" / "data-00001-of-00003.arrow").unlink()
    with pytest.raises(InputError, match=r"names 3 files, of which data-00001-of-00003\.arrow are missing"):
        found(tmp_path / "d")


def test_a_folder_of_the_hub(tmp_path: Path) -> None:
    write(tmp_path, "data/train-00000-of-00002.parquet", "data/test.jsonl", "dataset_infos.json", "load.py", "LICENSE")
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nA data set.\n")
    sources, left = found(tmp_path)
    assert names(sources) == {"train-00000-of-00002.parquet": "train"}
    assert sources.notes == (f"{tmp_path / 'data' / 'train-'}*: 1 of 2 files are there",)
    assert left == {
        "test.jsonl": "the source's test split (name the file itself to read it)",
        "dataset_infos.json": "describes the data beside it",
        "LICENSE": "describes the data beside it",
        "README.md": "describes the data beside it",
        "load.py": "no table, in the folder of a data set",
    }


def test_a_readme_among_texts_is_a_text(tmp_path: Path) -> None:
    sources, left = found(write(tmp_path, "README.md", "a.md", "tests/test_a.py", "train.py"))
    assert set(names(sources)) == {"README.md", "a.md", "test_a.py", "train.py"}
    assert set(names(sources).values()) == {None}
    assert not left


def test_splits_need_a_train_split(tmp_path: Path) -> None:
    for folder, expected in (
        (write(tmp_path / "1", "wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"), ["train", "validation"]),
        (write(tmp_path / "2", "test.jsonl", "other.jsonl"), [None, None]),
        (write(tmp_path / "3", "train.jsonl", "more.jsonl"), [None, None]),
        (
            write(tmp_path / "4", "en/train/0.parquet", "en/dev/0.parquet", "zh/0.parquet"),
            ["validation", "train", "train"],
        ),
        (write(tmp_path / "5", "train/a.txt", "test/b.txt"), [None, None]),  # a source tree
    ):
        assert [source.side for source in found(folder)[0].files] == expected
    assert names(found(tmp_path / "1" / "wiki.test.tokens")[0]) == {"wiki.test.tokens": None}


def test_megatron_is_one_source_of_two_files(tmp_path: Path) -> None:
    write_megatron(tmp_path / "d", [[1], [2]])
    sources, left = found(tmp_path)
    assert [(s.path.name, s.kind) for s in sources.files] == [("d.idx", "megatron")]
    assert not left
