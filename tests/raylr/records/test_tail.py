from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from raylr.records.tail import Tail, last_lines, whole_lines


@given(st.binary(max_size=200).map(lambda data: data.replace(b"\r", b"")), st.lists(st.integers(0, 200), max_size=5))
def test_a_file_read_piece_by_piece_has_the_lines_of_the_whole(tmp_path_factory, data, cuts) -> None:
    path = tmp_path_factory.mktemp("tail") / "file"
    tail, found, at = Tail(path, whole_lines), [], 0
    for cut in [*sorted(cuts), len(data)]:
        with path.open("ab") as file:
            file.write(data[at : max(at, cut)])
        at = max(at, cut)
        found += tail.new()
    assert found == [line for line in data[: data.rfind(b"\n") + 1].split(b"\n") if line.strip()]


def test_a_file_that_was_replaced_or_cut_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    tail = Tail(path, whole_lines)
    assert list(tail.new()) == []
    path.write_bytes(b"one\ntwo\n")
    assert list(tail.new()) == [b"one", b"two"]
    path.write_bytes(b"six\n")
    assert list(tail.new()) == [b"six"]
    (tmp_path / "other").write_bytes(b"seven\neight\n")
    (tmp_path / "other").replace(path)
    assert list(tail.new()) == [b"seven", b"eight"]


def test_last_lines_have_no_colours_and_no_old_progress_bars(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"first\n\x1b[31mred\x1b[0m\n 10%\r 20%\r100%\nError: no\n\n")
    assert last_lines(path, 3) == "red\n100%\nError: no"
    assert last_lines(tmp_path / "none") == ""
