"The report: what is read out of a run, against an earlier one, and of several machines."
import json
import shutil
import time
from pathlib import Path

import nbformat
import pytest
from conftest import command, report, report_of, slow

from coursekit.ledger import _beside, references
from coursekit.notebook import read_notebook
from coursekit.report import Result, machine_info, matches_reference, notebook_record, read_report, write_json


def test_an_output_that_is_no_picture_and_no_table_spoils_nothing(make, tmp_path):
    path = make("a", "from IPython.display import display\nfrom coursekit.workspace import TABLE\n"
                     "display({'image/png': 'a', 'text/plain': ''}, raw=True)\n"
                     "display({TABLE: 'text', 'text/plain': ''}, raw=True)\n"
                     "display({TABLE: {'title': 1, 'columns': [1], 'data': [2]}, 'text/plain': ''}, raw=True)")
    assert command("run", path, make("b", "x = 1"), "--out", tmp_path / "out").returncode == 0
    assert report(tmp_path / "out")["a"]["figures"] == 0 and report(tmp_path / "out")["a"]["tables"] == []


def test_a_table_without_rows_and_nan(make, tmp_path):
    path = make("a", "import pandas as pd\nfrom coursekit.workspace import show_table\n"
                     "show_table(pd.DataFrame({'x': []}), 'empty')\n"
                     "show_table(pd.DataFrame({'x': [float('nan'), float('inf')]}, index=pd.Index(['p', 'q'], "
                     "name='row')), 'odd')")
    assert command("run", path, "--out", tmp_path / "out").returncode == 0
    tables = report(tmp_path / "out")["a"]["tables"]
    assert tables[0]["data"] == [] and tables[1]["columns"] == ["row", "x"]


RESULT = ("import pandas as pd\nfrom coursekit.workspace import show_table\n"
          "show_table(pd.DataFrame({'run': ['vgg'], 'recipe': ['SGD'], 'data': ['CIFAR-10'], 'scale': ['full'], "
          "'test_accuracy': [lr], 'std': [0.01], "
          "'n': [3], 'reference': [REFERENCE]}), 'Results')")


@pytest.mark.parametrize("reference, then, now, verdict", [
    ("0.73 (a brief)", 0.74, 0.70, "left its reference"), slow("0.73 (a brief)", 0.74, 0.72, "agrees"),
    slow("0.73 (a brief)", 0.5, 0.7, "does not agree"),
    slow("at least 0.95 (a paper)", 0.96, 0.94, "left its reference"),
    slow("0.73 (a brief); different recipe", 0.5, 0.53, "moved"),
    slow("0.73 (a brief); different recipe", 0.5, 0.515, None), slow("", 0.5, 0.4, "moved")])
def test_a_result_that_left_its_reference_is_marked(make, tmp_path, reference, then, now, verdict):
    out, path = tmp_path / "out", make("a", f"REFERENCE = {reference!r}", RESULT)
    command("run", path, "-p", f"lr={then}", "--out", out)
    assert command("run", path, "-p", f"lr={now}", "--out", tmp_path / "new", "--against", out).returncode == 0
    judged = json.loads((tmp_path / "new" / "report.json").read_text())["judged"]
    page = (tmp_path / "new" / "index.html").read_text()
    assert [j["verdict"] for j in judged] == ([verdict] if verdict else [])
    assert not verdict or judged[0]["before"] == then and judged[0]["value"] == now and f">{verdict}</td>" in page


def test_the_ledger_writes_references_as_the_report_reads_them():
    known = references()["DD2424 baseline"]
    own = known["recipe"]
    for recipe, scale, expected in (own, "full", True), (own, "quick", None), ("another", "full", None):
        said = _beside(known, "test_accuracy", recipe, scale, {})
        assert matches_reference(known["value"] + 0.01, 0.01, said) is expected


@pytest.mark.slow
def test_what_got_slower_by_half_is_marked(make, tmp_path):
    out, path, other = tmp_path / "out", make("a", "import time\ntime.sleep(lr)"), make("b", "1/0")
    command("run", path, other, "-p", "lr=0.1", "--out", out)
    last = json.loads((out / "report.json").read_text())
    for n in last["notebooks"]:
        n["seconds"], n["parameters"] = 0.5, {"lr": 2.0}
    for name, cpu, slower in ("same", last["machine"]["CPU"], True), ("other", "abacus", False):
        (tmp_path / name).write_text(json.dumps({**last, "machine": {**last["machine"], "CPU": cpu}}))
        assert command("run", path, other, "-p", "lr=2.0", "--out", out, "--against", tmp_path / name).returncode == 1
        got, page = report(out), (out / "index.html").read_text()
        assert got["a"]["last"] == {"status": "passed", "seconds": 0.5, "slower": slower}
        assert not got["b"]["last"]["slower"]
        assert (">slower, ×" in page) == slower and ("on other hardware" in page) != slower


@pytest.mark.slow
def test_a_report_of_an_earlier_version_is_taken_for_what_it_says(make, tmp_path):
    out, path = tmp_path / "out", make("a", "x = 1")
    command("run", path, "--out", out)
    old = json.loads((out / "report.json").read_text())
    for n in old["notebooks"]:
        del n["fingerprint"], n["kept_from"]
        n["tables"] = [{"title": "no columns", "data": [[1]]}]
    (out / "report.json").write_text(json.dumps(old))
    assert command("run", path, "--changed", "--out", out).returncode == 0 and report(out)["a"]["kept_from"] == ""


@pytest.mark.slow
def test_looks_at_the_test_set_are_counted(make, tmp_path):
    look = ("from types import SimpleNamespace as S\nfrom coursekit.ledger import log_test_eval\n"
            "from coursekit.workspace import setup\n"
            "ws = setup('tiny')\nlog_test_eval(ws, S(fingerprint='f', title='CIFAR-10 <b>'), 'try')")
    path, runs = make("a", look), {"env": {"COURSEKIT_RUNS": str(tmp_path / "runs")}}
    for _ in range(2):
        assert command("run", path, "--out", tmp_path / "out", **runs).returncode == 0
        time.sleep(1)
    row = json.loads((tmp_path / "out" / "report.json").read_text())["looks"][0]
    assert row.items() >= {"data": "CIFAR-10 <b>", "fingerprint": "f", "looks": 2, "in this run": 1}.items()
    assert "CIFAR-10 &lt;b&gt;" in (tmp_path / "out" / "index.html").read_text()


def test_a_long_output_is_cut_in_the_report(make, tmp_path):
    command("run", make("a", "print('y' * 10**6)\nraise ValueError('z' * 10**6)"), "--out", tmp_path / "out")
    got = report(tmp_path / "out")["a"]
    assert len(got["reason"]) < 400 and len(got["error"]["printed"]) < 5000
    assert len(got["error"]["traceback"]) < 21_000
    assert (tmp_path / "out" / "index.html").stat().st_size < 1e5


@pytest.mark.parametrize("done, slowest", [({2: 1.0}, 3), ({2: 1.0, 3: 0.5}, 2), ({}, 3)])
def test_the_cell_at_which_a_notebook_was_stopped_counts_among_the_slowest(tmp_path, done, slowest):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_code_cell("x"),
                                         nbformat.v4.new_code_cell("while True: pass")])
    result = Result("a", Path("a.ipynb"), tmp_path / "a.ipynb", {}, status="failed", reason="took longer", cell=3,
                    nb=nb, cell_seconds=done, cell_started=time.monotonic() - 7)
    first = notebook_record(result)["slowest"][0]
    assert first["cell"] == slowest
    assert slowest != 3 or 7 <= first["seconds"] < 8 and first["source"] == "while True: pass"


@pytest.mark.parametrize("cell, reason", [(1, "took longer"), (0, "left a process behind"), (3, "")])
def test_no_other_cell_counts_as_stopped(tmp_path, cell, reason):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A"), nbformat.v4.new_code_cell("x"),
                                         nbformat.v4.new_code_cell("y")])
    result = Result("a", Path("a.ipynb"), tmp_path / "a.ipynb", {}, status="failed", reason=reason, cell=cell, nb=nb,
                    cell_seconds={2: 1.0}, cell_started=time.monotonic() - 7)
    assert [s["cell"] for s in notebook_record(result)["slowest"]] == [2]


def part(folder, started, gpu, **notebooks):
    "A report in a folder: {name: status}, each executed notebook with the GPU's name in it."
    made = []
    for name, status in notebooks.items():
        ran = status != "not run"
        outputs = [nbformat.v4.new_output("stream", text=gpu)]
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=outputs)])
        if ran:
            folder.mkdir(parents=True, exist_ok=True)
            nbformat.write(nb, folder / f"{name}.ipynb")
        made.append(notebook_record(Result(name, Path(name), folder / f"{name}.ipynb", {"scale": "tiny"},
                                           status=status, seconds=3.0, nb=nb, saved=float(ran),
                                           reason="E: x" * (status == "failed"))))
    facts = report_of(*made) | {"started": started, "machine": {**machine_info(), "GPU": gpu},
                                "parameters": {"scale": "tiny", "seed": len(gpu)},
                                "looks": [{"data": "CIFAR-10", "fingerprint": "f", "looks": 2, "in this run": 1,
                                           "notes": [["shared", False], [started, True]]}], "judged": []}
    write_json(facts, folder)
    return folder


def text_in(path):
    "What an executed notebook printed."
    return read_notebook(path).cells[0].outputs[0].text


def test_reports_of_several_machines_become_one(tmp_path):
    a = part(tmp_path / "a", "2026-01-31T09:00:00", "none", one="passed", two="failed")
    b = part(tmp_path / "b", "2026-01-31T10:00:00", "Tesla T4", three="passed")
    done = command("merge", a, b, "--out", tmp_path / "all")
    assert done.returncode == 1 and "2 of 3 passed; the report is" in done.stdout and done.stderr == ""
    got = json.loads((tmp_path / "all" / "report.json").read_text())
    rows = [(n["name"], n["status"], n["part"]) for n in got["notebooks"]]
    assert rows == [("two", "failed", str(a)), ("one", "passed", str(a)), ("three", "passed", str(b))]
    assert [p["machine"]["GPU"] for p in got["parts"]] == ["none", "Tesla T4"]
    assert got["machine"]["GPU"] == "none / Tesla T4"
    assert got["parameters"] == {"scale": "tiny"}
    looks = [{k: v for k, v in look.items() if k != "notes"} for look in got["looks"]]
    assert looks == [{"data": "CIFAR-10", "fingerprint": "f", "looks": 3, "in this run": 2}]
    executed = {f"{n}.ipynb{x}" for n in ("one", "two", "three") for x in ("", ".html")}
    written = {p.name for p in (tmp_path / "all").iterdir() if p.name != ".lock"}
    assert written == {"index.html", "report.json", *executed}
    page = (tmp_path / "all" / "index.html").read_text()
    assert "2026-01-31 09:00, merged from 2 reports" in page and "<td>Tesla T4</td>" in page
    assert f"<td>{b}</td>" in page
    assert text_in(tmp_path / "all" / "three.ipynb") == "Tesla T4" and read_report(tmp_path / "all")["passed"] == 2


@pytest.mark.parametrize("first, second, wins", [("passed", "failed", "b"), slow("failed", "passed", "b"),
                                                 slow("passed", "not run", "a"), slow("stopped", "running", "a")])
def test_of_a_notebook_in_two_reports_the_one_that_ran_last_counts_and_it_is_said(tmp_path, first, second, wins):
    a = part(tmp_path / "a", "2026-01-31T09:00:00", "a", one=first)
    b = part(tmp_path / "b", "2026-01-31T10:00:00", "b", one=second)
    for order in (a, b), (b, a):
        done = command("merge", *order, "--out", tmp_path / "all")
        n, = json.loads((tmp_path / "all" / "report.json").read_text())["notebooks"]
        assert n["part"] == str(tmp_path / wins) and n["status"] == (first if wins == "a" else second)
        assert f"one is in {tmp_path / wins} and in " in done.stderr
        assert "counts." in (tmp_path / "all" / "index.html").read_text()
        assert text_in(tmp_path / "all" / "one.ipynb") == wins


def test_a_kept_notebook_is_as_old_as_its_run(tmp_path):
    a = part(tmp_path / "a", "2026-01-31T09:00:00", "a", one="passed")
    b = part(tmp_path / "b", "2026-01-31T10:00:00", "b", one="passed")
    later = json.loads((b / "report.json").read_text())
    later["notebooks"][0]["kept_from"] = "2026-01-30T09:00:00"
    (b / "report.json").write_text(json.dumps(later))
    assert command("merge", a, b, "--out", tmp_path / "all").returncode == 0
    assert report(tmp_path / "all")["one"]["part"] == str(a)


@pytest.mark.slow
def test_a_merge_may_be_done_again_and_leaves_other_files_alone(tmp_path):
    a = part(tmp_path / "a", "2026-01-31T09:00:00", "a", one="passed", two="passed")
    b = part(tmp_path / "b", "2026-01-31T10:00:00", "b", three="passed")
    out = tmp_path / "all"
    assert command("merge", a, b, "--out", out).returncode == 0
    (out / "mine.txt").write_text("mine")
    (a / "two.ipynb").unlink()
    part(a, "2026-01-31T11:00:00", "later", one="passed")
    assert command("merge", a, b, "--out", out).returncode == 0
    assert {p.stem for p in out.glob("*.ipynb")} == {"one", "three"} and (out / "mine.txt").exists()
    assert {p.name.split(".")[0] for p in out.glob("*.ipynb.html")} == {"one", "three"}
    assert "later" in (out / "one.ipynb.html").read_text()
    assert command("merge", out, b, "--out", tmp_path / "more").returncode == 0


@pytest.mark.parametrize("spoil, said", [("missing", "one was executed, but one.ipynb is not in"),
                                         slow("outside", "one was executed, but ../secret.ipynb is not in"),
                                         slow("absolute", "is not in")])
def test_an_executed_notebook_that_is_not_in_its_part_is_said(tmp_path, spoil, said):
    a = part(tmp_path / "a", "2026-01-31T09:00:00", "a", one="passed")
    b = part(tmp_path / "b", "2026-01-31T10:00:00", "b", two="passed")
    shutil.move(a / "one.ipynb", tmp_path / "secret.ipynb")
    if spoil != "missing":
        told = json.loads((a / "report.json").read_text())
        told["notebooks"][0]["executed"] = "../secret.ipynb" if spoil == "outside" else str(tmp_path / "secret.ipynb")
        (a / "report.json").write_text(json.dumps(told))
    done = command("merge", a, b, "--out", tmp_path / "all" / "deep")
    assert done.returncode == 0 and said in done.stderr and "Traceback" not in done.stderr
    assert {p.name for p in tmp_path.rglob("*.ipynb")} == {"secret.ipynb", "two.ipynb"}
    assert said in (tmp_path / "all" / "deep" / "index.html").read_text()


@pytest.mark.parametrize("parts, out, said", [(["a", "nowhere"], "all", "nowhere is no report of a run"),
                                              (["a", "b"], "b", "is one of the reports to merge: choose another "
                                                                "folder"),
                                              (["a", "b/report.json"], "b", "is one of the reports"),
                                              (["a", "b"], "mine", "would write over")])
def test_a_merge_that_would_lose_something_is_a_sentence(tmp_path, parts, out, said):
    part(tmp_path / "a", "2026-01-31T09:00:00", "a", one="passed"), part(tmp_path / "b", "2026-01-31T10:00:00", "b",
                                                                         two="passed")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("<title>My page</title>")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    done = command("merge", *(tmp_path / p for p in parts), "--out", tmp_path / out)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and p.name != ".lock"} == before
