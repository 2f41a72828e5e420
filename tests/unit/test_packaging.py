"""What is installed is what is declared, and it works away from the repository."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cliptrase.data.make.recipes import recipe

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SHIPPED = ("conf", "assets", "published")
SUFFIXES = {".txt", ".csv", ".py", ".html", ".css", ".js"}
HEAVY = {"torch", "torchvision", "open_clip", "hydra", "omegaconf", "pandas", "sklearn", "scipy"}
HEAVY |= {"datasets", "pyarrow", "matplotlib", "wandb", "snakemake", "timm", "transformers"}

# Declared though no module of ours imports them.
NOT_IMPORTED = {
    "pygments": "snakemake --report",
    "snakemake": "the Snakefile",
}


def lines_of(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def run_python(code: str, **more) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, **more).stdout


def test_conda_users_get_the_same_ranges():
    packages = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = packages["dependencies"]
    assert pip["pip"] == PROJECT["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]


def test_the_locks_hold_exact_versions_within_the_ranges():
    pins = {}
    for line in [*lines_of("requirements.lock"), *lines_of("requirements-cluster.lock")]:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!_-]+", line), line
        name, _, version = line.partition("==")
        pins[canonicalize_name(name)] = version
    extras = PROJECT["optional-dependencies"]
    wanted = PROJECT["dependencies"] + extras["dev"] + extras["cluster"]
    for requirement in map(Requirement, wanted):
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"


def test_make_alone_lists_the_targets_that_others_rely_on():
    told = subprocess.run(["make", "-C", ROOT], check=True, capture_output=True, text=True).stdout
    for target in ("setup", "demo", "test", "check", "train-shapes-clip"):
        assert f"make {target} " in told


def test_the_locked_torchvision_is_the_one_made_for_the_locked_torch():
    pins = dict(line.split("==") for line in lines_of("requirements.lock"))
    needed = importlib.metadata.requires("torchvision")
    installed = importlib.metadata.version("torchvision")
    if installed != pins["torchvision"]:
        pytest.skip(f"torchvision {installed} is installed, not the locked one")
    (torch,) = (one for one in map(Requirement, needed or []) if one.name == "torch")
    assert torch.specifier.contains(pins["torch"])


def test_dependencies_are_what_the_code_imports():
    modules = importlib.metadata.packages_distributions()
    used = set()
    for file in (ROOT / "src").rglob("*.py"):
        for module in imported(ast.parse(file.read_text(encoding="utf-8"))):
            if module not in sys.stdlib_module_names | {"cliptrase"}:
                used |= {canonicalize_name(name) for name in modules[module]}
    declared = {canonicalize_name(Requirement(one).name) for one in PROJECT["dependencies"]}
    assert used - declared == set()
    assert declared - used == set(NOT_IMPORTED)
    (heic,) = PROJECT["optional-dependencies"]["heic"]  # imported by its name where it is installed
    assert Requirement(heic).name in (ROOT / "docs" / "segment.md").read_text(encoding="utf-8")


def imported(tree: ast.Module) -> set[str]:
    """Top-level names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize(
    "module",
    ["cliptrase", "cliptrase.plan", "cliptrase.config", "cliptrase.pipeline", "cliptrase.cli"],
)
def test_planning_and_help_load_nothing_heavy(module):
    loaded = run_python(f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})")
    assert HEAVY & set(loaded.split()) == set()


def test_expanding_a_suite_and_printing_help_load_nothing_heavy():
    code = """
import contextlib, io, sys
import cliptrase.cli, cliptrase.plan
cliptrase.plan.load("paper")
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    cliptrase.cli.main(["--help"])
print(*{name.split(".")[0] for name in sys.modules})
"""
    assert HEAVY & set(run_python(code).split()) == set()


def test_the_packages_names_come_on_first_use():
    import cliptrase

    assert cliptrase.resolve.__module__ == "cliptrase.config.run"
    assert cliptrase.Segmenter.__module__ == "cliptrase.segmenter"
    assert set(cliptrase.__all__) <= set(dir(cliptrase))
    with pytest.raises(AttributeError, match="Segmentor"):
        _ = cliptrase.Segmentor


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True, cwd=folder)
    (found,) = folder.glob("cliptrase-*.whl")
    return found


def test_the_wheel_carries_every_shipped_file(wheel):
    packed = set(zipfile.ZipFile(wheel).namelist())
    ours = [file for name in SHIPPED for file in (ROOT / name).rglob("*") if file.is_file()]
    ours = [file for file in ours if "__pycache__" not in file.parts]
    assert {f"cliptrase/_share/{file.relative_to(ROOT)}" for file in ours} <= packed
    inside = (file for file in (ROOT / "src").rglob("*") if file.suffix in SUFFIXES)
    assert {str(file.relative_to(ROOT / "src")) for file in inside} <= packed


@pytest.mark.slow
def test_an_installed_wheel_segments_from_another_folder(wheel, tmp_path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    options = ["--quiet", "--no-deps", "--no-index", "--target", site]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, wheel], check=True)
    elsewhere.mkdir()
    code = f"""
import sys
sys.path.insert(0, {str(site)!r})
import cliptrase
from cliptrase.data.make.recipes import recipe
from cliptrase.shapes.scenes import evaluation_scene
from cliptrase.resources import resource
assert str(resource()) == {str(site / "cliptrase" / "_share")!r}, resource()
segmenter = cliptrase.Segmenter("shapes_clip", classes=["circle", "star", "grass"])
result = segmenter(evaluation_scene("shapes", 0).image)
print(cliptrase.__file__, *result.labels.shape, recipe("shapes").digest())
"""
    package, height, width, digest = run_python(code, cwd=elsewhere).split()
    assert Path(package).is_relative_to(site)
    assert (int(height), int(width)) == (224, 224)
    assert digest == recipe("shapes").digest()  # what one has prepared, the other opens
