"How Sphinx makes the site from what tools/website.py put together; `make site` runs both."
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from stamp import facts
from website import as_shown

repo, version = facts()
project = "coursekit"
copyright = "The coursekit authors, Apache-2.0"
release = version
extensions = ["myst_nb", "sphinx_design", "sphinx_copybutton"]
exclude_patterns = ["*.txt"]  # parts of pages

# The notebooks have their outputs; nothing is run.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "fieldlist", "html_image"]
myst_heading_anchors = 3
python_maximum_signature_line_length = 80

html_use_index = html_domain_indices = False  # api.html is the index
html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "repository_url": f"https://github.com/{repo}", "repository_branch": f"v{version}", "use_repository_button": True,
    "launch_buttons": {"colab_url": "https://colab.research.google.com"}, "home_page_in_toc": True,
    "show_toc_level": 2, "use_fullscreen_button": False, "navbar_persistent": [], "footer_content_items": ["copyright"],
}


def show_notebook(app, docname, source):
    "Show nbdev's comments as labels, and fold what is folded."
    if docname.startswith("nbs/"):
        source[0] = as_shown(source[0], Path(docname).name[:2])


def launch(app, pagename, templatename, context, doctree):
    "Kaggle beside Colab in the menu of a lesson; a notebook of the kit has no cell that installs, and no menu."
    buttons = context.get("header_buttons", [])
    for menu in [b for b in buttons if b.get("label") == "launch-buttons"]:
        notebook = f"https://github.com/{repo}/blob/v{version}/{pagename}.ipynb"
        menu["buttons"].append({"type": "link", "text": "Kaggle", "tooltip": "Launch on Kaggle",
                                "icon": "fa-brands fa-kaggle", "url": f"https://kaggle.com/kernels/welcome?src={notebook}"})
        if pagename.startswith("nbs/kit/"):
            buttons.remove(menu)


def setup(app):
    app.connect("source-read", show_notebook)
    app.connect("html-page-context", launch, priority=900)  # after the theme's own
