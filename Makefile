# make run:      every notebook at tiny scale, offline; the report is report/index.html
# make test:     the tests but for the slow ones, in a few minutes
# make test-all: the slow ones too
# make lint:     ruff, and whether coursekit/ and data_links.md are what nbs/ and the catalogue say
# make site:     the course as a web site, nothing run again; it is build/site/html/index.html
# make links:    whether the links of site, README and docs lead somewhere; EXTERNAL=1: those to other sites, too
# make browser: lessons, report and site in JupyterLab and Chromium; pictures of them in build/browser
# All make .venv first (the site: .venv-site, without torch), with whatever Python 3.11 or newer PYTHON names.
PYTHON ?= python3
BIN = .venv/bin
NOTEBOOKS = nbs/*.ipynb nbs/kit/*.ipynb
COLAB_PYTHON ?= 3.13
SITE = .venv-site/bin
OLD_PYTHON = import sys; sys.exit("coursekit needs Python 3.11 or newer: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)
# A process for each core, and a thread for each process: more would slow each other down.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n auto
WRITTEN = tests/test_notebooks.py::test_clean_and_export_leave_no_difference tests/test_fetch.py::test_data_links_is_written_from_the_catalogue

.PHONY: run test test-all lint hooks site links browser full export refresh stamp resolve colab dist

run: .venv/ready
	$(BIN)/coursekit run $(NOTEBOOKS) --scale tiny --cell-timeout 600

test: .venv/ready
	$(PYTEST) -m 'not slow'

# After `test`, so that `make test test-all` runs nothing twice.
test-all: test
	$(PYTEST) -m slow

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/pytest $(WRITTEN)

# Everything is read again each time: what Sphinx warned of once, it would not say again.
site: .venv-site/ready
	rm -rf build/site/html
	$(SITE)/python tools/website.py build/site/source
	$(SITE)/sphinx-build -q -E -W --keep-going -c docs/site -d build/site/doctrees build/site/source build/site/html

# The build itself ends where a link inside, or its heading, leads nowhere.
links: site
	$(if $(EXTERNAL),$(SITE)/sphinx-build -q -b linkcheck -c docs/site -d build/site/doctrees build/site/source build/site/links)

# Needs Chromium: apt install chromium, or its path in CHROMIUM.
browser: .venv/browser site
	$(BIN)/pytest tests/browser.py

# All lessons at full scale, on the data in COURSEKIT_DATA.
full: .venv/ready
	$(BIN)/coursekit run --scale full

# After an edit in nbs/ or of the catalogue: write coursekit/ and data_links.md again.
export: .venv/ready
	$(BIN)/nbdev-clean
	$(BIN)/nbdev-export
	$(BIN)/python tools/data_links.py

# Notebooks merged cell by cell, compared by their text and trusted after a pull: what nbdev-install-hooks sets,
# but by the tools in .venv, and for this clone alone. .gitattributes names the two drivers.
hooks: .venv/ready
	git config merge.jupyternotebook.name "nbdev: cell by cell"
	git config merge.jupyternotebook.driver "$(BIN)/nbdev-merge %O %A %B %P"
	git config diff.jupyternotebook.command $(BIN)/nbdev-diff-driver
	hook=$$(git rev-parse --git-path hooks)/post-merge; test -e "$$hook" || \
	{ mkdir -p "$${hook%/*}" && printf '#!/bin/sh\n$(BIN)/nbdev-trust\n' > "$$hook" && chmod +x "$$hook"; }

# Run everything at quick scale on the data in COURSEKIT_DATA and keep the outputs in the notebooks.
refresh: .venv/ready
	$(BIN)/coursekit run $(NOTEBOOKS) --scale quick --inplace

# After a new version in settings.ini: write it into badges, install cells and CITATION.cff.
stamp: .venv/ready
	$(BIN)/python tools/stamp.py

# Would coursekit change a package of Colab as it is today?
resolve: .venv/ready
	mkdir -p build
	curl -fsSL https://raw.githubusercontent.com/googlecolab/backend-info/main/pip-freeze.gpu.txt -o build/freeze.txt
	COLAB_FREEZE=build/freeze.txt $(BIN)/pytest tests/test_package.py -k colab -rs

# In Colab's own versions: the wheel must change none of them, and every notebook must run; the report is report/colab/index.html.
# COLAB_PYTHON: a version, or the path of a Python, as uv takes it; COLAB_FREEZE: another freeze, such as the one of make resolve.
colab: .venv/ready
	$(BIN)/python tools/colab.py build/colab --python $(COLAB_PYTHON)
	env -u PYTHONPATH build/colab/bin/coursekit run $(NOTEBOOKS) --scale tiny --cell-timeout 600 --out report/colab

# The files of a release; TAG must be the version in settings.ini.
dist: .venv/ready
	test "$(TAG)" = "v$$($(BIN)/python -c 'import coursekit; print(coursekit.__version__)')"
	$(BIN)/python -m build --outdir dist

.venv/ready: settings.ini setup.py pyproject.toml
	$(PYTHON) -c '$(OLD_PYTHON)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.venv/browser: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,browser]'
	touch $@

# Not coursekit itself: the site is made from what stands in the notebooks and modules, and needs no torch.
.venv-site/ready: settings.ini
	$(PYTHON) -c '$(OLD_PYTHON)'
	$(PYTHON) -m venv .venv-site
	$(SITE)/pip install --quiet --disable-pip-version-check \
	$$($(SITE)/python -c 'from configparser import *; c = ConfigParser(delimiters="="); c.read("settings.ini"); print(c["DEFAULT"]["site_requirements"])')
	touch $@
