"""Lessons, report and site as a person sees them: JupyterLab and Chromium, driven by Playwright. `make browser` runs
it; plain pytest does not."""
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from ast import literal_eval
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import ROOT, command
from playwright.sync_api import expect, sync_playwright

from coursekit.fetch import catalogue
from coursekit.notebook import read_notebook

PICTURES = ROOT / "build" / "browser"
# Playwright itself adds --headless, and --no-sandbox
QUIET = ["--disable-gpu", "--disable-quic", "--disable-sync", "--disable-background-networking",
         "--disable-component-update", "--no-first-run"]
SETTINGS = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False,
                                                "doNotDisturbMode": True},
            "notebook-extension/tracker": {"windowingMode": "none"}}  # every cell is in the page, seen or not


# A server and a browser that nothing outlives

def end(process):
    "End a process and all that came from it; what does not go in ten seconds is killed."
    # the kernels shut down with their server
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    process.terminate()
    for p in psutil.wait_procs(family, timeout=10)[1]:
        p.kill()
    process.wait(10)
    assert not psutil.wait_procs(family, timeout=5)[1]


def private(home):
    "An environment in which programs read and write below `home` alone, and find no network."
    keep = {k: v for k, v in os.environ.items()
            if not k.startswith(("COURSEKIT_", "JUPYTER", "IPYTHON", "XDG_", "MPL"))}
    nowhere = dict.fromkeys(["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"], "http://127.0.0.1:9")
    return {**keep, **nowhere, "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1", "HOME": str(home),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "COURSEKIT_RUNS": str(home / "runs"), "COURSEKIT_CACHE": str(home / "cache")}


def write_settings(folder):
    "JupyterLab's settings as this test needs them."
    for name, setting in SETTINGS.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(setting))


def free_port():
    "A port of this machine that nobody listens on."
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def wait_for(port, server, log):
    "Wait until a server listens, a minute at most."
    for _ in range(120):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert server.poll() is None, log.read_text()[-2000:]
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer in a minute:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session", autouse=True)
def polite_kill():
    "A polite kill ends like ctrl-C: what follows the fixtures' yields is run."
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    "JupyterLab in a folder of its own: the folder, and a function from a notebook's name to its address."
    home, folder, port, token = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("course"), free_port(), \
        secrets.token_hex()
    log = home / "log.txt"
    write_settings(home / "settings")
    with log.open("w") as out:
        server = subprocess.Popen([Path(sys.executable).with_name("jupyter"), "lab", "--no-browser", "--ip=127.0.0.1",
                                   f"--port={port}", "--allow-root",
                                   "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}",
                                   f"--ServerApp.root_dir={folder}",
                                   "--expose-app-in-browser"], stdout=out, stderr=out, cwd=folder, env=private(home))
    try:
        wait_for(port, server, log)
        yield folder, lambda name: f"http://127.0.0.1:{port}/lab/workspaces/{Path(name).stem}/tree/{name}?token={token}"
    finally:
        end(server)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    "The system's own Chromium: CHROMIUM, or what is on the path."
    names = [os.environ["CHROMIUM"]] if os.environ.get("CHROMIUM") else ["chromium", "chromium-browser",
                                                                         "google-chrome"]
    path = next(filter(None, map(shutil.which, names)), None)
    if not path:
        pytest.exit(f"There is no {' or '.join(names)} here: apt install chromium, or name the program of a Chromium "
                    f"or Chrome in CHROMIUM.", 1)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=QUIET,
                                             env=private(tmp_path_factory.mktemp("browser")))
        yield browser
        browser.close()


def new_page(chromium):
    "An empty page that waits for nothing longer than half a minute."
    page = chromium.new_page(viewport={"width": 1300, "height": 1000})
    page.set_default_timeout(30_000)
    return page


# A lesson in JupyterLab

CELLS = "jupyterapp.shell.currentWidget.content.widgets.map(c => c.model).filter(m => m.type === 'code')"
ENDED = f"""() => {{ const cells = {CELLS};
    return cells.every(m => m.executionCount)
        || cells.some(m => [...Array(m.outputs.length).keys()].some(i => m.outputs.get(i).type === 'error')); }}"""
ASK = """async code => { const kernel = jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const late = new Promise((_, fail) => setTimeout(
        () => fail(Error('the kernel did not answer in 30 seconds')), 30000));
    const request = {code: '', silent: true, user_expressions: {it: code}};
    const reply = await Promise.race([kernel.requestExecute(request).done, late]);
    return reply.content.user_expressions.it.data['text/plain']; }"""


def ask(page, expression="0"):
    "What an expression is in the page's kernel, which by then has answered all clicks before."
    return page.evaluate(ASK, expression)


def opened(chromium, lab, lesson):
    "A lesson at tiny scale in JupyterLab after Run All Cells; without the outputs that are committed."
    folder, address = lab
    nb = read_notebook(ROOT / "nbs" / lesson)
    parameters = next(c for c in nb.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source = parameters.source.replace('scale = "quick"', 'scale = "tiny"')
    for c in nb.cells:
        if c.cell_type == "code":
            c.outputs, c.execution_count = [], None
    nbformat.write(nb, folder / lesson)
    page = new_page(chromium)
    page.goto(address(lesson))
    page.locator(".jp-NotebookPanel .jp-CodeCell").first.wait_for()
    page.wait_for_function("jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(ENDED, polling=500, timeout=180_000)
    return page


@pytest.fixture(scope="module")
def data(chromium, lab):
    page = opened(chromium, lab, "01_data.ipynb")
    yield page
    page.close()


@pytest.fixture(scope="module")
def text(chromium, lab):
    page = opened(chromium, lab, "05_text.ipynb")
    yield page
    page.close()


def check_all_ran(page, seen):
    "Every code cell has run, none with an error, and one of them showed `seen`."
    cells = page.evaluate(CELLS + ".map(m => m.toJSON())")
    assert [o for c in cells for o in c["outputs"] if o["output_type"] == "error"] == []
    assert len(cells) > 20 and all(c["execution_count"] for c in cells) and seen in json.dumps(cells)


def widget(page, **role):
    "The box of widgets that has a button, say, of a name."
    return page.locator(".jp-OutputArea-output > .widget-vbox").filter(has=page.get_by_role(**role))


def picture(box, name):
    "Keep a picture of a part of a page."
    box.scroll_into_view_if_needed()
    box.screenshot(path=PICTURES / f"{name}.png")


# Lesson 01

def test_lesson_01_runs_in_jupyterlab(data):
    check_all_ran(data, "stand-in")


def names_where(**conditions):
    "The catalogue's names where each condition holds, in order."
    table = catalogue()
    return [name for name, row in table.iterrows() if all(holds(row[column]) for column, holds in conditions.items())]


def shown(picker):
    "The names in the picker's table, when as many are there as it says."
    count = picker.locator("p").filter(has_text=" of ")
    rows = picker.locator("tbody tr")
    expect(rows).to_have_count(int(count.inner_text().split()[0]))
    return rows.locator("td:first-child").all_inner_texts()


def test_the_dataset_picker_filters(data):
    picker = widget(data, role="combobox", name="commercial")

    def settled():
        "The names after what was chosen."
        ask(data)
        return shown(picker)

    assert settled() == names_where()
    picker.get_by_label("task").select_option("text")
    fits = {"task": lambda t: "text" in t.split("; ")}
    assert 0 < len(settled()) < len(names_where()) and shown(picker) == names_where(**fits)
    picker.get_by_label("commercial").select_option("yes")
    fits["commercial"] = lambda use: use == "yes"
    free = settled()
    assert free == names_where(**fits)
    picker.get_by_role("slider").press("Home")
    assert settled() == names_where(**fits, size_gb=lambda gb: gb <= 0.1) != free
    picture(picker, "picker")


def test_the_resolution_game_scores(data):
    game = widget(data, role="button", name="cat")
    turns = literal_eval(ask(data, "[(int(size), species.classes[species.labels[i]]) for size, i in game.turns]"))
    right = [k % 3 > 0 for k in range(len(turns))]
    for k, (size, label) in enumerate(turns):
        expect(game).to_contain_text(f"picture {k + 1} of {len(turns)}, {size} pixels")
        expect(game).to_contain_text("right; " if k and right[k - 1] else f"it was {turns[k - 1][1]}; " if k else "")
        if k == 2:
            picture(game, "game")
        buttons = game.get_by_role("button")
        (buttons.filter(has_text=label) if right[k] else buttons.filter(has_not_text=label)).first.click()
    expect(game).to_contain_text(f"{sum(right)} of {len(turns)} right")
    expect(game.locator("tbody tr")).to_have_count(len({size for size, _ in turns}))
    for row in game.locator("tbody tr").all():
        size, n, n_right, accuracy, _ = row.locator("td").all_inner_texts()
        mine = [r for r, (s, _) in zip(right, turns) if s == int(size)]
        assert (int(n), int(n_right), accuracy) == (len(mine), sum(mine), f"{sum(mine) / len(mine):.0%}")
    assert all(b.is_disabled() for b in game.get_by_role("button").all())
    picture(game, "game-score")


# Lesson 05

def test_lesson_05_runs_in_jupyterlab(text):
    check_all_ran(text, "stand-in")


def written(page, sampler):
    "What the sampler writes now."
    ask(page)  # what was set before has arrived
    sampler.get_by_role("button", name="write").click()
    ask(page)
    return sampler.locator("pre").inner_text()


def test_the_sampler_answers_the_temperature(text):
    sampler = widget(text, role="button", name="write")
    temperature, p = sampler.get_by_role("slider").all()
    usual = written(text, sampler)
    assert usual.startswith("The ") and len(usual) == 404
    picture(sampler, "sampler")
    temperature.press("End")
    wild = written(text, sampler)
    picture(sampler, "sampler-hot")
    temperature.press("Home")
    cold = written(text, sampler)
    picture(sampler, "sampler-cold")
    # how many characters it dares
    assert len({usual, wild, cold}) == 3 and len(set(cold)) < len(set(usual)) < len(set(wild))
    temperature.press("End")
    assert written(text, sampler) == wild, "the same seed and temperature write the same"
    temperature.press("Home")
    p.press("Home")
    likeliest = written(text, sampler)
    sampler.get_by_label("seed").fill("7")
    assert written(text, sampler) == likeliest, ("the coldest and narrowest takes the likeliest each time, whatever "
                                                 "the seed")


# The report

SCRIPTS = """<script>window.hacked = 1; document.title = 'hacked'; alert('hacked')</script>
<img src='data:,' onerror='window.hacked = 2'>
<img src='http://127.0.0.1:{port}/spy.png'><p>a table of mine</p>"""


def notebook(path, *sources):
    "A notebook with a parameters cell and the given code cells."
    cells = [nbformat.v4.new_code_cell('scale = "quick"', metadata={"tags": ["parameters"]}),
             *map(nbformat.v4.new_code_cell, sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


@pytest.fixture(scope="module")
def spy():
    "A port that nobody should call."
    with socket.create_server(("127.0.0.1", 0)) as s:
        s.settimeout(0.5)
        yield s


@pytest.fixture(scope="module")
def report(tmp_path_factory, spy):
    "The report of a good notebook, one that prints HTML with scripts, and one that fails."
    folder, html = tmp_path_factory.mktemp("report"), SCRIPTS.format(port=spy.getsockname()[1])
    good = notebook(folder / "a_good.ipynb", "import matplotlib.pyplot as plt\nplt.figure(figsize=(12, "
                                             "9))\nplt.plot([1, 3, 2])\nplt.show()")
    hostile = notebook(folder / "b_hostile.ipynb", f"from IPython.display import HTML\nprint({html!r})\nHTML({html!r})",
                       f"import pandas as pd\nfrom coursekit.workspace import "
                       f"show_table\nshow_table(pd.DataFrame({{'x': [{html!r}]}}), {html!r})")
    bad = notebook(folder / "c_bad.ipynb", "width = 3", f"from IPython.display import HTML, "
                                                        f"display\ndisplay(HTML({html!r}))\nwidth = width - 3\nratio = "
                                                        f"12 / width  # the line\nprint(ratio)")
    done = command("run", good, hostile, bad, "--jobs", 1, "--out", folder / "out")
    assert done.returncode == 1, done.stdout + done.stderr
    return folder / "out" / "index.html"


@pytest.fixture
def opened_report(chromium, report):
    "The report in a page, and two lists: what went wrong there, and what was loaded."
    page, wrong, loaded = new_page(chromium), [], []
    # a script that is kept from running is as it should be
    blocked = "Blocked script execution", "Content Security Policy"
    page.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning")
            and not any(b in m.text for b in blocked) else None)
    page.on("pageerror", lambda e: wrong.append(str(e)))
    page.on("dialog", lambda d: (wrong.append(d.message), d.dismiss()))
    page.on("requestfinished", lambda r: loaded.append(r.url))
    page.goto(report.as_uri(), wait_until="domcontentloaded")  # a picture that the spy never sends is not waited for
    yield page, wrong, loaded
    page.close()


def test_the_report_runs_no_script_and_calls_nobody(opened_report, spy):
    page, wrong, loaded = opened_report
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.wait_for_timeout(500)
    # the page, and what the failing cell showed
    assert wrong == [] and "hacked" not in page.title() and len(page.frames) == 2
    assert all(frame.evaluate("window.hacked === undefined") for frame in page.frames)
    assert loaded and all(url.startswith(("file://", "data:", "about:")) for url in loaded)
    with pytest.raises(TimeoutError):
        spy.accept()


def test_the_report_begins_with_what_failed(opened_report):
    page, _, _ = opened_report
    first = page.locator("section").first
    expect(first).to_contain_text("c_bad")
    for words in "ZeroDivisionError: division by zero", "ratio = 12 / width  # the line":
        expect(first.get_by_text(words).first).to_be_visible()
    page.screenshot(path=PICTURES / "report.png", full_page=True)


def test_a_click_on_a_figure_of_the_report_shows_it_large(opened_report):
    page, _, _ = opened_report
    image = page.locator("section", has_text="a_good").locator("img").first
    assert image.bounding_box()["width"] < 300
    image.click()
    expect(page.locator("details[open] > summary > img")).to_have_count(1)
    assert image.bounding_box()["width"] >= 600
    image.click()
    expect(page.locator("details[open] > summary > img")).to_have_count(0)


# The site

SITE = ROOT / "build" / "site" / "html"
PAGES = sorted(p.relative_to(SITE).as_posix() for p in SITE.rglob("*.html") if "_" not in p.relative_to(SITE).parts[0])
# WCAG's contrast of an element's text and the ground behind it
CONTRAST = """e => { const rgb = c => c.match(/[\\d.]+/g).map(Number);
    const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const light = c => rgb(c).slice(0, 3).reduce((sum, v, i) => sum + linear(v / 255) * [.2126, .7152, .0722][i], 0);
    const clear = e => rgb(getComputedStyle(e).backgroundColor)[3] === 0;
    let ground = e;
    while (ground.parentElement && clear(ground)) ground = ground.parentElement;
    const [a, b] = [getComputedStyle(e).color, getComputedStyle(ground).backgroundColor].map(light);
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        "Say nothing."


@pytest.fixture(scope="module")
def site():
    "The address of the site that `make site` built."
    assert (SITE / "index.html").exists(), "there is no site: make site"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def visit(chromium, site):
    "A page, and a function that goes to one of the site by its path."
    page = new_page(chromium)
    yield page, lambda path: page.goto(site + path)
    page.close()


def test_lesson_03_is_found_and_opens_in_colab_in_two_clicks(visit):
    page, go = visit
    go("index.html")
    page.screenshot(path=PICTURES / "site.png", full_page=True)
    card = page.locator(".sd-card", has_text="03 · ")
    colab = "https://colab.research.google.com/github/"
    assert card.get_by_role("link", name="Open in Colab").get_attribute("href").startswith(colab)
    with page.expect_request(lambda r: r.url.startswith(colab)):  # the link is above the card's own
        card.get_by_role("link", name="Open in Colab").click()
    go("index.html")
    card.click()
    page.wait_for_url("**/nbs/03_finetune.html")
    assert page.get_by_role("link", name="Open In Colab").first.get_attribute("href").endswith("/nbs/03_finetune.ipynb")
    menu = page.locator(".dropdown-launch-buttons a[href$='/nbs/03_finetune.ipynb']")
    assert [link.get_attribute("href").split("/")[2] for link in menu.all()] == ["colab.research.google.com",
                                                                                 "kaggle.com"]


def test_the_search_finds_nucleus(visit):
    page, go = visit
    go("search.html?q=nucleus")
    results = page.locator("#search-results")
    expect(results.get_by_role("link", name="coursekit.text.nucleus")).to_be_visible()
    expect(results.get_by_role("link", name="05 · ").first).to_be_visible()


def test_in_the_dark_text_and_outputs_can_be_read(visit):
    page, go = visit
    go("nbs/03_finetune.html")
    page.emulate_media(color_scheme="dark")
    html = page.locator("html")
    for _ in range(3):  # the button goes around light, dark and what the system says
        if html.get_attribute("data-mode") != "dark":
            page.locator(".theme-switch-button:visible").click()
    expect(html).to_have_attribute("data-theme", "dark")
    for what in "article p", "summary", *(f".cell_output {tag}" for tag in ("caption", "td", "th", "pre")):
        assert page.locator(what).first.evaluate(CONTRAST) > 4.5, what
    figure = page.locator(".cell_output img").first
    assert figure.evaluate("e => getComputedStyle(e).backgroundColor") != "rgba(0, 0, 0, 0)"
    picture(page.locator(".cell_output .text_html").first, "site-dark")


def test_a_solution_is_folded_and_opens(visit):
    page, go = visit
    go("nbs/03_finetune.html")
    solution = page.locator(".cell.tag_solution").first
    code = solution.locator(".cell_input pre")
    expect(code).to_be_hidden()
    solution.get_by_text("Show the solution").click()
    expect(code).to_be_visible()
    expect(page.locator(".cell.tag_parameters pre").first).to_be_hidden()
    expect(page.locator("pre", has_text="#| export")).to_have_count(0)
    expect(page.locator(".cell.tag_export")).not_to_have_count(0)


def test_a_name_leads_to_the_cell_that_defines_it(visit):
    page, go = visit
    go("api.html")
    page.get_by_role("link", name="nucleus", exact=True).first.click()
    page.wait_for_url("**/api/text.html#coursekit.text.nucleus")
    page.locator("dl", has=page.locator("[id='coursekit.text.nucleus']")).get_by_role("link", name="05_text").click()
    page.wait_for_url("**/nbs/05_text.html#cell-*")
    expect(page.locator(f"[id='{page.url.partition('#')[2]}']")).to_be_in_viewport()


def test_no_page_is_wider_than_a_phone(visit):
    page, go = visit
    page.set_viewport_size({"width": 390, "height": 844})
    wide = []
    for path in PAGES:
        go(path)
        if page.evaluate("document.documentElement.scrollWidth") > 390:
            wide.append(path)
    page.screenshot(path=PICTURES / "site-phone.png")
    assert len(PAGES) > 50 and wide == []
