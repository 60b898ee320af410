"Write data_links.md from the catalogue; run by `make export`."
from pathlib import Path
from urllib.parse import urlsplit

from coursekit.fetch import catalogue, for_task, tasks

HEAD = """# Where the course's data is

Datasets and tools that deep-learning course briefs name: Stanford's CS230, KTH's DD2424, and VSE's deep-learning \
course, whose own links come first. What says *coursekit: NAME* comes by `coursekit data fetch 'NAME'`, and is read \
by a function of `coursekit.data` (`cifar10`, `cifar100`, `pets`, `imagenette`, `omniglot`, `hippocampus`) or of \
`coursekit.text` (`shakespeare`, `dickinson`); if you just want to begin, take one of those. Sizes are what you \
download. *Commercial* says whether the licence allows commercial use; *unclear* means that the owner states nothing, \
or that its parts differ. An unknown is left out, never guessed.
"""
LOOK = """## Where to look for more

- [Google Dataset Search](https://datasetsearch.research.google.com)
- [Kaggle datasets](https://www.kaggle.com/datasets) and [competitions](https://www.kaggle.com/competitions)
- [Hugging Face datasets](https://huggingface.co/datasets)
- [CV Datasets on the web](http://www.cvpapers.com/datasets.html) and [YACVID](http://yacvid.hayko.at)

This page is written from `coursekit/catalogue.csv` by `make export`; edit there.
"""


def line(row):
    "A list item: what one needs to decide, then the pitfalls, then the source."
    size = "size not published" if row.size_gb != row.size_gb else f"{row.size_gb:g} GB"
    facts = [size, row.licence, f"commercial: {row.commercial}", f"load by {row.load}"]
    links = ", ".join(f"[{urlsplit(url).netloc.removeprefix('www.')}]({url})" for url in row.source.split("; "))
    return f"- **[{row.Index}]({row.home})**: {'; '.join(facts)}. {row.pitfalls} Source: {links}."


def links(table):
    "The page: the course's own links first, the rest by task."
    own = table.index.str.startswith("VSE") | (table.task == "course")
    groups = {"VSE's own folder, notebook and challenges": table[own]}
    for task in tasks(table[~own]):
        groups[task[0].upper() + task[1:]] = for_task(table[~own], task)
    parts = [f"## {title}\n\n" + "\n".join(map(line, rows.itertuples())) + "\n" for title, rows in groups.items()]
    return "\n".join([HEAD, *parts, LOOK])


if __name__ == "__main__":
    Path("data_links.md").write_text(links(catalogue()), encoding="utf-8")
