"Write data_links.md from the catalogue; run by `make export`."
from pathlib import Path

from coursekit.fetch import catalogue

HEAD = """# Where the course's data is

Written from `coursekit/catalogue.csv` by `make export`: edit there. Sizes are what you download. *Commercial* says whether the licence allows commercial use; *unclear* means that the owner states nothing, or that its parts differ. An unknown is left out, never guessed. What `load` calls `coursekit: NAME` comes by `coursekit data fetch 'NAME'`.
"""
LOOK = """## Where to look for more

- [Google Dataset Search](https://datasetsearch.research.google.com)
- [Kaggle datasets](https://www.kaggle.com/datasets) and [competitions](https://www.kaggle.com/competitions)
- [Hugging Face datasets](https://huggingface.co/datasets)
- [CV Datasets on the web](http://www.cvpapers.com/datasets.html) and [YACVID](http://yacvid.hayko.at)
"""


def line(row):
    "A list item: what one needs to decide, then the pitfalls, then the source."
    size = "size not published" if row.size_gb != row.size_gb else f"{row.size_gb:g} GB"
    facts = [size, row.licence, f"commercial: {row.commercial}", f"load by {row.load}"]
    links = ", ".join(f"[{n}]({url})" for n, url in enumerate(row.source.split("; "), 1))
    return f"- **[{row.Index}]({row.home})**: {'; '.join(facts)}. {row.pitfalls} Source: {links}."


def links(table):
    "The page: the course's own links first, the rest by task."
    own = table.index.str.startswith("VSE") | (table.task == "course")
    groups = {"The course's own folder, notebook and challenges": table[own]}
    for task in sorted({t for cell in table.task[~own] for t in cell.split("; ")}):
        groups[task[0].upper() + task[1:]] = table[~own & table.task.map(lambda cell: task in cell.split("; "))]
    parts = [f"## {title}\n\n" + "\n".join(map(line, rows.itertuples())) + "\n" for title, rows in groups.items()]
    return "\n".join([HEAD, *parts, LOOK])


if __name__ == "__main__":
    Path("data_links.md").write_text(links(catalogue()), encoding="utf-8")
