"The package: metadata, size of an import, what an installation holds, and that Colab stays as it is."
import importlib.metadata
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import colab
import stamp


def settings():
    "The facts in settings.ini."
    from configparser import ConfigParser

    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini")
    return config["DEFAULT"]


def test_pyproject_says_the_same_as_settings():
    project, facts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"], settings()
    assert project["name"] == facts["name"] and project["requires-python"] == f">={facts['min_python']}"


def test_the_citation_says_the_same_as_settings():
    said, facts = (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines(), settings()
    assert {f"title: {facts['name']}", f'abstract: "{facts["description"]}"', f"  - name: {facts['author']}",
            f"version: {facts['version']}", f"license: {facts['license']}",
            *(f"  - {word}" for word in facts["keywords"].split())} <= set(said)


def test_the_changes_of_this_version_are_told():
    told = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {settings()['version']} " in told, "CHANGELOG.md has no entry for the version in settings.ini"


def test_installed_metadata_comes_from_settings():
    meta, facts = importlib.metadata.metadata("coursekit"), settings()
    assert meta["Version"] == facts["version"] and meta["Summary"] == facts["description"]
    assert set(meta.get_all("Provides-Extra")) == {"run", "cluster", "timm", "dev", "browser", "site"}


def python(code):
    "Run code in a fresh interpreter; its output."
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def some_try_is_below(limit, seconds):
    "Whether one of 30 tries takes less than `limit` seconds: other work on the machine only ever makes it longer."
    return any(seconds() < limit for _ in range(30))


def test_import_is_light():
    code = ("import sys, time; t = time.perf_counter(); import coursekit; print(time.perf_counter() - t, 'torch' in "
            "sys.modules)")
    assert python(code).split()[1] == "False"
    assert some_try_is_below(0.150, lambda: float(python(code).split()[0]))


def test_help_is_quick():
    def seconds():
        start = time.perf_counter()
        subprocess.run([Path(sys.executable).with_name("coursekit"), "--help"], check=True, capture_output=True)
        return time.perf_counter() - start
    assert some_try_is_below(0.400, seconds)
    assert python("import sys, coursekit.course; print({'torch', 'numpy', 'pandas'} & set(sys.modules))") == "set()"


def online():
    "Whether packages can be fetched here."
    import uv  # noqa: F401 - without it nothing below would be tested

    asked = subprocess.run([sys.executable, "-m", "uv", "pip", "compile", "-q", "-"], input="platformdirs",
                           capture_output=True, text=True)
    return asked.returncode == 0


@pytest.fixture(scope="module")
def network():
    if not online():
        pytest.skip("packages can't be fetched here: no network")


@pytest.mark.slow
def test_sdist_to_wheel_to_install(network, tmp_path):
    # the wheel is built from the sdist
    subprocess.run([sys.executable, "-m", "build", "--outdir", tmp_path, ROOT], check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    inside = zipfile.ZipFile(wheel).namelist()
    assert {"coursekit/workspace.py", "coursekit/data.py", "coursekit/course.py"} <= set(inside)
    assert any(name.endswith("LICENSE") for name in inside) and not any(name.startswith(("tests", "nbs"))
                                                                        for name in inside)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "v"], check=True)
    new = tmp_path / "v" / "bin" / "python"
    subprocess.run([new, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, capture_output=True)
    got = subprocess.run([new, "-c", "import coursekit; print(coursekit.__version__)"], capture_output=True, text=True,
                         cwd=tmp_path)
    assert got.stdout.strip() == settings()["version"], got.stderr


def resolve(requirements, versions, tmp_path):
    "Resolve for Colab's Python with its versions held; the finished process."
    (tmp_path / "held.txt").write_text("\n".join(f"{n}=={v}" for n, v in versions.items()))
    return subprocess.run([sys.executable, "-m", "uv", "pip", "compile", "-q", "--no-header", "--no-annotate",
                           "--python-version", "3.13",
                           "--python-platform", "linux", "-c", tmp_path / "held.txt", "-"],
                          input="\n".join(requirements), capture_output=True, text=True)


def needs(extra=""):
    "What coursekit requires, with an extra."
    rows = [r.split(";") for r in importlib.metadata.requires("coursekit")]
    return [r[0] for r in rows if len(r) == 1 or re.search(r"extra == .(\w+)", r[1])[1] == extra]


@pytest.mark.slow
def test_installing_changes_nothing_on_colab(network, tmp_path):
    versions = colab.colab_versions()
    assert len(versions) > 300 and "torch" in versions
    for extra in "", "run", "timm":
        done = resolve(needs(extra), versions, tmp_path)
        assert done.returncode == 0, f"coursekit[{extra}] would change a package of Colab:\n{done.stderr}"
        assert f"torch=={versions['torch']}" in done.stdout


def test_every_runtime_requirement_is_on_colab():
    assert {re.match(r"[\w-]+", r)[0].lower() for r in needs()} <= set(colab.colab_versions())


@pytest.mark.slow
def test_the_colab_check_can_fail(network, tmp_path):
    newer = [*needs(), f"pandas>{colab.colab_versions()['pandas']}"]
    assert resolve(newer, colab.colab_versions(), tmp_path).returncode != 0


def test_what_an_installation_changes_on_colab_is_said_and_what_it_adds_is_not():
    before = colab.versions("# Colab's\ntorch==2.11.0+cu128\n"
                            "PyYAML==6.0.3\npandas==2.2.3\nbackports.zstd==1.0\nen_core_web_sm @ https://github.com/x.whl\n")
    after = colab.versions("torch==2.11.0\npyyaml==6.0.3\npandas==3.1.1\npapermill==2.7.0\n")
    assert colab.changes(before, after) == ["Installing coursekit changes Colab's pandas from 2.2.3 to 3.1.1.",
                                            "Installing coursekit changes Colab's backports-zstd from 1.0 to nothing."]
    assert colab.changes(after, after) == [] and "torch" in colab.names() and "papermill" in colab.names()


def test_badges_install_cells_and_citation_have_the_version_of_settings():
    for path in stamp.files():
        text = path.read_text()
        assert stamp.stamped(text, *stamp.facts()) == text, f"{path.name} names another tag: make stamp"
    repo, version = stamp.facts()
    for path in (ROOT / "nbs").glob("*.ipynb"):
        text = path.read_text()
        assert f"/github/{repo}/blob/v{version}/nbs/{path.name}" in text, f"{path.name} has no badge"
        assert f"https://github.com/{repo}/archive/refs/tags/v{version}.tar.gz" in text, (f"{path.name} has no install "
                                                                                          f"cell")
    assert stamp.stamped("github.com/a/b/archive/refs/tags/v9.9.tar.gz", "x/y",
                         "1.0") == "github.com/x/y/archive/refs/tags/v1.0.tar.gz"
    assert stamp.stamped("cff-version: 1.2.0\nversion: 9.9\n", "x/y", "1.0") == "cff-version: 1.2.0\nversion: 1.0\n"
