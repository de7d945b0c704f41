"""What is installed: every package of the project, with its data, also from a checkout without symlinks."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("raylr", "analysis", "searchers", "trainables")


def source_files() -> list[Path]:
    """Files of the packages below `ROOT`, without those that are seen through symlinks."""
    found = []
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            through_link = any(parent.is_symlink() for parent in path.relative_to(ROOT).parents if parent != Path())
            inside = path.relative_to(ROOT)
            linked = any((ROOT / Path(*inside.parts[:i])).is_symlink() for i in range(1, len(inside.parts)))
            if path.is_file() and not linked and not through_link and "__pycache__" not in path.parts:
                found.append(inside)
    return found


def recipes() -> list[str]:
    """Files of `recipes/`, which are installed as data."""
    found = [path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*") if path.suffix in (".yaml", ".md")]
    assert len(found) > 3
    return [str(path) for path in found]


def package_name(folder: Path) -> str:
    """`analysis/laws` → `raylr.analysis.laws`."""
    parts = folder.parts if folder.parts[0] == "raylr" else ("raylr", *folder.parts)
    return ".".join(parts)


def test_the_packages_of_pyproject_are_those_on_disk() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    on_disk = {package_name(path.parent) for path in source_files() if path.name == "__init__.py"}
    assert set(listed) == on_disk
    assert len(set(listed)) == len(listed)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources as git makes it with core.symlinks=false: each symlink is a file that holds its target."""
    folder = tmp_path_factory.mktemp("checkout") / "raylr"
    for path in source_files():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((ROOT / path).read_bytes())
    for name in ("pyproject.toml", "README.md", "LICENSE", *recipes()):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    for name in FOLDERS[1:]:
        (folder / "raylr" / name).write_text(f"../{name}")
    return folder


@pytest.mark.slow
def test_wheel_and_sdist_from_a_checkout_without_symlinks(checkout: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(checkout)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=200)
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    wanted = {
        str(path if path.parts[0] == "raylr" else Path("raylr") / path)
        for path in source_files()
        if path.suffix in (".py", ".pyi", ".html", ".txt", ".typed") or path.name == "py.typed"
    }
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert wanted <= packed, sorted(wanted - packed)
    installed = {name.partition(".data/data/share/raylr/")[2] for name in packed}
    assert set(recipes()) <= installed
    with tarfile.open(sdist) as archive:
        sources = {str(Path(*Path(member.name).parts[1:])) for member in archive.getmembers() if member.isfile()}
    missing = ({str(path) for path in source_files() if path.suffix in (".py", ".pyi")} | {*recipes()}) - sources
    assert not missing, sorted(missing)
    _runs_without_torch(wheel, tmp_path / "installed")


def _runs_without_torch(wheel: Path, folder: Path) -> None:
    """The wheel's `analysis` and `searchers` work where torch and DeepSpeed are not installed."""
    zipfile.ZipFile(wheel).extractall(folder)
    code = (
        "import sys\n"
        "for name in ('torch', 'deepspeed', 'tokenizers', 'safetensors'): sys.modules[name] = None\n"
        "import raylr, raylr.analysis, raylr.searchers\n"
        "assert 'site-packages' not in raylr.__file__ and 'installed' in raylr.__file__, raylr.__file__\n"
        "from raylr.analysis import fit_lr_law, presets\n"
        "from raylr.searchers import PowerLawScheduler, QuadraticSearch\n"
        "print(presets.get('zhou2026').predict(4e9, 120e9).lr, raylr.__version__)\n"
        "assert {'analysis', 'searchers', 'trainables', '__version__'} <= set(dir(raylr))\n"
    )
    environment = {"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin"}
    run = [sys.executable, "-c", code]
    shown = subprocess.run(run, check=True, capture_output=True, text=True, cwd=folder, env=environment, timeout=120)
    assert shown.stdout.startswith("0.000527")
