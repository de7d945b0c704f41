import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylr.live.board import Block, Board

NAMES = st.sampled_from("abcdef")
AREA = st.dictionaries(NAMES, st.integers(0, 2), max_size=4)


@given(st.lists(st.tuples(st.sampled_from(["top", "end"]), AREA), max_size=12), st.data())
def test_a_reader_that_takes_the_news_now_and_then_has_what_a_new_one_gets(changes, data):
    board = Board(["top", "end"])
    have, answer = {}, {"server": "", "version": -1}
    for area, contents in changes:
        board.put(area, [Block(id=f"{area}-{name}", html=str(value)) for name, value in contents.items()])
        if data.draw(st.booleans()):
            answer = board.news(answer["server"], answer["version"])
            have = {name: answer["blocks"].get(name, have.get(name)) for name in answer["order"]}
    answer = board.news(answer["server"], answer["version"])
    have = {name: answer["blocks"].get(name, have.get(name)) for name in answer["order"]}
    whole = board.news()
    assert have == whole["blocks"]
    assert whole["order"] == list(whole["blocks"])
    assert board.news(whole["server"], whole["version"])["blocks"] == {}


def test_the_same_blocks_again_are_no_news():
    board = Board(["all"])
    board.put("all", [Block(id="a", html="x", figure={"panels": [1.5]})])
    version = board.news()["version"]
    board.put("all", [Block(id="a", html="x", figure={"panels": [1.5]})])
    assert board.news()["version"] == version
    board.put("all", [Block(id="a", html="x", figure={"panels": [2.5]})])
    assert board.news(board.server, version)["blocks"]["a"]["figure"] == {"panels": [2.5]}


def test_a_reader_of_another_server_gets_everything():
    board = Board(["all"])
    board.put("all", [Block(id="a", html="x")])
    assert board.news("another", 99)["blocks"]


def test_a_number_that_json_does_not_know_is_a_bug():
    with pytest.raises(ValueError):
        Board(["all"]).put("all", [Block(id="a", html="", figure={"y": float("nan")})])


def test_threads_may_read_while_it_changes():
    board, wrong = Board(["all"]), []

    def read():
        for _ in range(200):
            news = board.news()
            if news["order"] != list(news["blocks"]) or not json.dumps(news):
                wrong.append(news)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for i in range(300):
        board.put("all", [Block(id=f"{j}", html=str(i)) for j in range(i % 5)])
    for reader in readers:
        reader.join()
    assert not wrong
