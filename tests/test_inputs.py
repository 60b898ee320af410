"What decides a notebook's outcome: the files and modules beside it, the package, versions, data."
import os
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest
from conftest import command, report

from coursekit.files import CourseError
from coursekit.inputs import environment_hash, local_inputs, walk_files
from coursekit.notebook import read_notebook
from coursekit.report import machine_info


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give up what it may read")
def test_a_notebook_or_a_folder_that_is_closed_is_no_traceback():
    with tempfile.TemporaryDirectory() as room:  # pytest's own folders are closed to others
        os.chmod(room, 0o755)
        path, data = Path(room) / "a.ipynb", Path(room) / "data"
        (data / "closed").mkdir(parents=True)
        for file in data / "open.txt", data / "closed" / "in.txt", path:
            file.write_text("{}")
        path.chmod(0), (data / "closed").chmod(0)
        os.setresuid(65534, 65534, 0)
        try:
            with pytest.raises(CourseError, match="a.ipynb can't be read .Permission denied"):
                read_notebook(path)
            found = [f.name for f in walk_files(data, set())]
        finally:
            os.setresuid(0, 0, 0)
        assert found == ["open.txt"]


@pytest.mark.slow
def test_changed_keeps_what_would_run_the_same(make, tmp_path):
    a, b, out = make("a", "print(1)"), make("b", "1/0"), tmp_path / "out"
    data = {"env": {"COURSEKIT_DATA": str(tmp_path / "data")}}

    def again(*options):
        command("run", a, b, *options, "--changed", "--out", out, **data)
        return {n: r["kept_from"] != "" for n, r in report(out).items()}
    assert again() == {"a": False, "b": False}
    assert again() == {"a": True, "b": False} and (out / "a.ipynb").exists()  # what failed runs again
    since = report(out)["a"]["kept_from"]
    assert again() == {"a": True, "b": False} and report(out)["a"]["kept_from"] == since
    assert again("-p", "n=4") == {"a": False, "b": False}
    nb = nbformat.read(a, 4)
    nb.cells[-1].outputs = [nbformat.v4.new_output("stream", text="of another day")]
    nbformat.write(nb, a)
    assert again("-p", "n=4") == {"a": True, "b": False}  # outputs decide nothing
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "cifar10").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "elsewhere" / "x.png").write_bytes(b"1")
    assert again("-p", "n=4") == {"a": False, "b": False}
    make("a", "print(2)")
    assert again("-p", "n=4") == {"a": False, "b": False}
    make("a", "print(2)", kernel="cobol")
    assert again("-p", "n=4") == {"a": False, "b": False} and report(out)["a"]["status"] == "failed"
    make("a", "print(2)")
    assert again("-p", "n=4") == {"a": False, "b": False}
    (out / "a.ipynb").unlink()
    assert again("-p", "n=4") == {"a": False, "b": False}


IMPORTS = {
    "a module": ("import helper", "helper.py"),
    "in a function": ("def f():\n    from helper import x\nf()", "helper.py"),
    "through a module": ("import helper", "deep.py"),
    "a package's module": ("from pkg.sub import thing", "pkg/sub.py"),
    "a package's own lines": ("import pkg.sub", "pkg/__init__.py"),
    "what it imports from beside it": ("import pkg.sub", "pkg/near.py"),
    "a folder that is added": ("import sys\nsys.path.append('../src')\nimport far", "../src/far.py"),
    "a folder without __init__": ("import bare.inner", "bare/inner.py"),
    "a script": ("%run helper.py", "helper.py"),
    "a script without its suffix": ("%run helper", "deep.py"),
    "one that a shell runs": ("!{sys.executable} helper.py", "helper.py"),
    "a file": ("open('table.csv')", "table.csv"),
    "a file through a module": ("import helper", "named.txt"),
    "a file in a folder": ("open('data/x y.csv')", "data/x y.csv"),
    "a folder": ("from pathlib import Path\nlist(Path('data').glob('*'))", "data/x y.csv"),
    "a file beside the folder": ("open('../shared.csv')", "../shared.csv"),
    "a shell's file": ("%%bash\ncat table.csv | wc", "table.csv"),
    "files by a pattern": ("import glob\nglob.glob('data/*.csv')", "data/x y.csv"),
    "new files by a pattern": ("from glob import glob\nglob('data/*.csv')", "data/new.csv"),
    "files of any kind by a pattern": ("import glob\nglob.glob('data/*')", "data/more.txt"),
    "files beside it by a pattern": ("import glob\nglob.glob('*.csv')", "table.csv"),
}


@pytest.fixture
def beside_it(tmp_path):
    "A folder with modules and files in it."
    files = {"helper.py": "import deep\nNAME = 'named.txt'", "deep.py": "x = 1", "pkg/__init__.py": "",
             "pkg/sub.py": "from . import near\nfrom .. import no\nthing = 1", "pkg/near.py": "",
             "../src/far.py": "", "bare/inner.py": "", "table.csv": "1", "named.txt": "1", "data/x y.csv": "1",
             "../shared.csv": "1", "broken.py": "x = (", "other.py": "", "data/.hidden": "1"}
    for name, text in files.items():
        path = tmp_path / "nbs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "nbs"


@pytest.mark.parametrize("source, file", IMPORTS.values(), ids=IMPORTS)
def test_what_is_beside_a_notebook_counts_if_it_names_it(make, beside_it, source, file):
    nb = read_notebook(make("nbs/a", source, "import broken, json, numpy, no_such, coursekit",
                            "open('/etc/hostname')\n'.', '..', 'a' * 300, 'x\\0y', ''", "not python at all"))
    look = lambda: local_inputs(nb, beside_it, beside_it / "report")
    before = look()
    assert look() == before and "broken.py" in before
    assert not [f for f in before if re.search(r"^/|\.ipynb$|site-packages|other", f)]
    (beside_it / "other.py").write_text("changed")
    (beside_it / "data" / ".hidden").write_text("changed")
    assert look() == before
    (beside_it / file).write_text("changed = 1")
    assert look() != before


@pytest.mark.slow
def test_changed_runs_what_reads_an_edited_file(make, tmp_path):
    (tmp_path / "helper.py").write_text("x = 1")
    (tmp_path / "report").mkdir()
    a, b = make("a", "import helper\nhelper.x"), make("b", "open('table.csv', 'w').write('1')\n'report'")
    data = {"cwd": tmp_path, "env": {"COURSEKIT_DATA": str(tmp_path / "data")}}

    def again():
        command("run", a, b, "--changed", **data)
        return {n: r["kept_from"] != "" for n, r in report(tmp_path / "report").items()}
    assert again() == {"a": False, "b": False}
    assert again() == {"a": True, "b": False}  # b has made a file that it names
    assert again() == {"a": True, "b": True}
    (tmp_path / "helper.py").write_text("x = 2")
    assert again() == {"a": False, "b": True}
    for name in ".CIFAR-10.lock", "cifar.lock", "cifar.tar.gz.part", ".DS_Store":
        (tmp_path / "data" / name).write_text("")
    assert again() == {"a": True, "b": True}  # a fetch that failed leaves no data
    (tmp_path / "data" / "x.png").write_text("")
    assert again() == {"a": False, "b": False}


def test_a_module_that_is_installed_to_be_worked_on_counts(make, tmp_path, monkeypatch):
    (tmp_path / "work" / "mine").mkdir(parents=True)
    (tmp_path / "work" / "mine" / "__init__.py").write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path / "work"))
    nb = read_notebook(make("nbs/a", "import mine, random, pandas"))
    before = local_inputs(nb, tmp_path / "nbs", tmp_path / "out")
    assert list(before) == ["../work/mine/__init__.py"]
    (tmp_path / "work" / "mine" / "__init__.py").write_text("x = 2")
    assert local_inputs(nb, tmp_path / "nbs", tmp_path / "out") != before


def test_the_package_and_versions_are_in_the_fingerprint(tmp_path, monkeypatch):
    import coursekit

    shutil.copytree(Path(coursekit.__file__).parent, tmp_path / "coursekit")
    before = environment_hash(tmp_path / "none", machine_info())
    monkeypatch.setattr(coursekit, "__file__", str(tmp_path / "coursekit" / "__init__.py"))
    assert environment_hash(tmp_path / "none", machine_info()) == before
    (tmp_path / "coursekit" / "text.py").open("a").write("\n")
    assert environment_hash(tmp_path / "none", machine_info()) != before
    monkeypatch.undo()
    assert environment_hash(tmp_path / "none", {**machine_info(), "torch": "0.1"}) != before
