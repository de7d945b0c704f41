from raylr.trainables.data.texts import python_stdlib_sources


def test_the_standard_library_is_there() -> None:
    sources = python_stdlib_sources()
    assert sources == sorted(sources)
    assert len(sources) > 300
    assert any(p.name == "argparse.py" for p in sources)
    assert not any("site-packages" in p.parts or "tests" in p.parts for p in sources)
