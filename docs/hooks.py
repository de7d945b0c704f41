"""What the site (mkdocs.yml) needs beyond the pages in this folder, so that they read the same in the repository.

* Files of the repository to which a page links (`../examples/…`, `../SECURITY.md`) become pages below `repository/`.
* The API reference is one page a package, of what its `__init__.pyi` exports, grouped by module.
* Lists that follow a paragraph without a blank line are lists, as repository hosts show them.
"""

from __future__ import annotations

import ast
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^ {0,3}(```+|~~~+)")
ITEM = re.compile(r"^( *)([*+-]|\d+\.) ")
PACKAGES = {
    "raylr": "raylr",
    "analysis": "raylr.analysis",
    "searchers": "raylr.searchers",
    "trainables": "raylr.trainables",
    "spec": "raylr.spec",
}
"""Page of the reference → package."""
ALWAYS = ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "recipes/README.md")
"""Files of the repository that the navigation names."""
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".sh": "sh", ".toml": "toml", ".json": "json"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the reference and those of the repository's files."""
    for page, package in PACKAGES.items():
        files.append(File.generated(config, f"reference/{page}.md", content=reference(package)))
    known = {file.src_uri for file in files}
    waiting = [(f"repository/{name}", ROOT / name) for name in ALWAYS]
    for file in list(files.documentation_pages()):
        if not file.src_uri.startswith("reference/"):
            waiting += linked(file.src_uri, file.content_string)
    while waiting:
        uri, path = waiting.pop()
        if uri in known or not path.is_file():
            continue
        known.add(uri)
        content = page_of(path)
        files.append(File.generated(config, uri, content=content, inclusion=_included(uri)))
        waiting += linked(uri, content)
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at the pages of the site, and separate lists from paragraphs."""
    source = page.file.src_uri
    if source.startswith("reference/"):
        return markdown
    return _outside_fences(markdown, lambda text: _spaced(_relinked(text, source)))


def reference(package: str) -> str:
    """Return the page of a package's reference."""
    folder = ROOT.joinpath(*package.split("."))
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    exported: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse((folder / "__init__.pyi").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = exported.setdefault(node.module, [])
            names += [alias.name for alias in node.names]
    lines = [f"# {package}", "", docstring, ""]
    for module, names in exported.items():
        lines += [f"## `{package}.{module}`", ""]
        lines += [_object(package, module, name) for name in names]
    return "\n".join(lines)


def _object(package: str, module: str, name: str) -> str:
    return f"::: {package}.{module}.{name}\n"


def _included(uri: str) -> Any:
    from mkdocs.structure.files import InclusionLevel

    named = uri.removeprefix("repository/") in ALWAYS
    return InclusionLevel.INCLUDED if named else InclusionLevel.NOT_IN_NAV


def page_of(path: Path) -> str:
    """Return a file of the repository as a page: Markdown as it is, other text as a block of code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return text
    name = path.relative_to(ROOT).as_posix()
    return f"# {name}\n\n`````{LANGUAGES.get(path.suffix, 'text')}\n{text.rstrip()}\n`````\n"


def origin(source: str) -> Path:
    """Return the file of the repository that a page of the site comes from."""
    if source.startswith("repository/"):
        path = ROOT / source.removeprefix("repository/")
        return path if path.is_file() else path.with_suffix("")
    return ROOT / "docs" / source


def target(source: str, link: str) -> tuple[str, Path] | None:
    """Return the page and the file of a relative link, or None where it needs no change."""
    if "://" in link or link.startswith(("mailto:", "/")):
        return None
    path = Path(posixpath.normpath((origin(source).parent / link).as_posix()))
    if not path.is_relative_to(ROOT):
        return None
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix(), path
    name = path.relative_to(ROOT).as_posix()
    if name == "README.md":
        return "index.md", path
    return f"repository/{name if path.suffix == '.md' else name + '.md'}", path


def linked(source: str, markdown: str) -> list[tuple[str, Path]]:
    """Return page and file of every link of a page to a file outside of `docs/`."""
    found = [target(source, link) for _, link, _ in LINK.findall(markdown)]
    return [each for each in found if each and each[0].startswith("repository/")]


def _relinked(text: str, source: str) -> str:
    def replace(match: re.Match[str]) -> str:
        found = target(source, match[2])
        if found is None:
            return match[0]
        return match[1] + posixpath.relpath(found[0], posixpath.dirname(source) or ".") + match[3]

    return LINK.sub(replace, text)


def _spaced(text: str) -> str:
    """Put a blank line before a list that follows a paragraph, and indent nested items by four."""
    lines: list[str] = []
    for line in text.split("\n"):
        before = lines[-1] if lines else ""
        if ITEM.match(line) and before.strip() and not ITEM.match(before) and not _in_list(lines):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def _in_list(lines: list[str]) -> bool:
    """Whether the last paragraph of the lines belongs to an item of a list."""
    for line in reversed(lines):
        if not line.strip():
            return False
        if ITEM.match(line):
            return True
    return False


def _outside_fences(markdown: str, change: Any) -> str:
    done: list[str] = []
    text: list[str] = []
    fence = ""
    for line in markdown.split("\n"):
        match = FENCE.match(line)
        if not fence and match:
            done += [change("\n".join(text))] if text else []
            text, fence = [], match[1]
            done.append(line)
        elif fence:
            done.append(line)
            fence = "" if line.strip() == fence else fence
        else:
            text.append(line)
    return "\n".join([*done, change("\n".join(text))] if text else done)
