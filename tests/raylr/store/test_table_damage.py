"""Tables whose files are damaged, missing, foreign or in the way: one sentence each, and nothing is lost."""

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_table import KEY, SCHEMA, opened, row

from raylr.errors import DamagedError, StorageError, StudyError
from raylr.store import table as module
from raylr.store.table import Table


@pytest.fixture
def table(tmp_path):
    return Table(tmp_path / "table", SCHEMA, KEY)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_flipped_bit_goes_unnoticed(tmp_path_factory, data):
    table = Table(tmp_path_factory.mktemp("t") / "table", SCHEMA, KEY)
    table.append([row(i, loss=i / 3) for i in range(20)])
    (fragment,) = table.fragments()
    content = bytearray(fragment.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    fragment.write_bytes(content)
    with pytest.raises(DamagedError, match=fragment.name):
        opened(table).read()


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet"])
def test_a_torn_fragment_is_named(table, content):
    table.append([row(1)])
    (fragment,) = table.fragments()
    fragment.write_bytes(content)
    with pytest.raises(DamagedError, match=f"{fragment.name} is damaged"):
        table.read()
    assert [problem.path for problem in table.problems()] == [fragment]


def test_pages_carry_checksums_for_other_readers(table):
    table.append([row(i, loss=i / 3) for i in range(2000)])
    (fragment,) = table.fragments()
    content = bytearray(fragment.read_bytes())
    where = pq.ParquetFile(fragment).metadata.row_group(0).column(2).data_page_offset + 200
    content[where] ^= 1
    fragment.write_bytes(content)
    with pytest.raises(OSError, match=r"(?i)crc"):
        pq.read_table(fragment, page_checksum_verification=True)


def test_a_fragment_that_is_gone_is_noticed(table):
    for tokens in range(4):
        table.append([row(tokens)])
    table.fragments()[1].unlink()
    (problem,) = table.problems()
    assert "fragment 1 of" in problem.message
    table.append([row(9)])
    assert len(table.problems()) == 1


@pytest.mark.parametrize("gone", range(3))
@pytest.mark.parametrize("left", [1, 2])
def test_a_gap_is_forgotten_when_the_table_is_compacted(table, gone, left):
    for tokens in range(left + 1):
        table.append([row(tokens)])
    table.fragments()[min(gone, left)].unlink()
    again = opened(table)
    again.append([row(tokens) for tokens in range(left + 1)])  # what it held is measured again
    again.compact()
    assert opened(table).problems() == []
    assert sorted(opened(table).read()["tokens"].to_pylist()) == list(range(left + 1))


def test_a_table_of_another_owner_is_refused(table):
    mine = opened(table, owner="mine")
    mine.append([row(1)])
    with pytest.raises(StudyError, match="results of another spec"):
        opened(table, owner="theirs").read()
    assert len(opened(table)) == 1


def test_a_table_of_an_earlier_version_is_told_apart_from_a_damaged_one(table):
    table.folder.mkdir()
    (table.folder / "00000000-0123abcd.parquet").write_bytes(b"PAR1")
    with pytest.raises(StudyError, match="earlier version"):
        table.read()


def test_a_damaged_fragment_is_not_compacted_away(table):
    table.append([row(1)])
    table.append([row(2)])
    table.fragments()[0].write_bytes(b"")
    with pytest.raises(DamagedError):
        table.compact()
    assert len(list(table.folder.iterdir())) == 2


def test_a_full_disk_is_one_sentence_and_the_rows_are_written_later(table, monkeypatch):
    table.append([row(0)])

    def full(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(StorageError, match=r"cannot write .*table/00000001-\w+\.parquet: the disk is full"):
            table.append([row(1)])
    assert len(list(table.folder.iterdir())) == 1
    table.flush()
    assert opened(table).read()["tokens"].to_pylist() == [0, 1]


def test_a_folder_that_was_removed_is_not_made_again(table):
    table.append([row(0)])
    for path in table.folder.iterdir():
        path.unlink()
    table.folder.rmdir()
    with pytest.raises(StorageError, match="its folder is not there"):
        table.append([row(1)])
    assert not table.folder.exists()


@pytest.mark.parametrize("number", [10**20, 10**60])
def test_a_number_far_above_the_others_is_not_counted_up_to(table, number):
    """Of a file that somebody copied there: `raylr check` must end."""
    table.append([row(10)])
    foreign = table.folder / f"{number}-{'0' * 16}.parquet"
    foreign.write_bytes(b"something else")
    damaged, missing = opened(table).problems()
    assert damaged.path == foreign
    assert missing.message == f"fragments 1 to {number - 1} of {table.folder} are missing"
    foreign.unlink()
    assert opened(table).problems() == []
    (own,) = table.fragments()
    own.rename(own.with_name(f"{number}-{own.name.partition('-')[2]}"))
    opened(table).append([row(20)])
    assert opened(table).problems() == []
    assert len(opened(table)) == 2


def test_a_fragment_of_a_later_version_is_told_apart_from_a_damaged_one(table, monkeypatch):
    monkeypatch.setattr(module, "FORMAT", 3)
    table.append([row(10)])
    monkeypatch.undo()
    with pytest.raises(StudyError, match=r"later version of raylr \(format 3, this version reads 2\); update raylr"):
        opened(table).read()
    (problem,) = opened(table).problems()
    assert "later version" in problem.message


def test_a_link_that_leads_nowhere_is_named(table):
    table.append([row(10)])
    (path,) = table.fragments()
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("gone"))
    with pytest.raises(StorageError, match=r"it is a link to .*gone, which is not there"):
        opened(table).read()
    path.unlink()
    path.symlink_to(path.with_name("moved"))
    assert len(opened(table)) == 1
