"Write data_links.md from the catalogue; run by `make export`."
import re
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd

from coursekit.fetch import catalogue

HEAD = """# Where the course's data is

Datasets and tools that deep-learning course briefs name: Stanford's CS230, KTH's DD2424 and VSE's deep-learning \
course. Each stands once, under the first task that it is known for.

- **examples** is how many images, sentences, recordings or ratings there are, **size** what you download. A cell is \
empty where nobody says, or where there is nothing to count.
- **commercial** says whether the licence lets you sell what you build. *yes*: it does; CC BY wants the authors named, \
and CC BY-SA also wants what you derive to carry the same licence. *no*: research or teaching only. *unclear*: the \
owner states nothing, or its parts differ. A licence is no permission from the people in the pictures.
- **to load it** is one line to paste. In Python, first `import` what stands before the last dot; if that fails, \
`pip install` what stands before the first (for `sklearn`, `scikit-learn`). `root` is a folder of yours, and \
`ws = coursekit.workspace.setup("quick")`. What begins with `curl`, `git`, `pip` or `kaggle` goes into a terminal, or \
behind a `!` into a notebook.
- **Pitfalls**, folded under each table, are worth a minute before you choose.

## Six to start with

The lessons use the first five, the sixth is for segmentation. Each comes by itself when you load it, goes on where a \
download was cut off, and is in a train, a validation and a test part.
"""
LOOK = """## Where to look for more

- [CS230's past projects](https://cs230.stanford.edu/past-projects/): what others built in one term, and on which data
- [Google Dataset Search](https://datasetsearch.research.google.com)
- Kaggle's [datasets](https://www.kaggle.com/datasets) and [competitions](https://www.kaggle.com/competitions)
- [Hugging Face datasets](https://huggingface.co/datasets)
- Lists that are kept by hand: [public datasets](https://github.com/awesomedata/awesome-public-datasets), \
[NLP](https://github.com/keon/awesome-nlp), [GANs](https://github.com/nightrome/really-awesome-gan), \
[deep learning](https://github.com/endymecy/awesome-deeplearning-resources)

Whatever you find: ask of it what [lesson 01](nbs/01_data.ipynb) asks, licence and duplicates first.

This page is written from `coursekit/catalogue.csv` by `make export`; edit there. For each fact the column `source` \
says where it was read.
"""
COLUMNS = "set", "examples", "size", "licence", "commercial", "to load it"
START = ("Oxford-IIIT Pet", "CIFAR-10", "tiny Shakespeare", "Emily Dickinson poems", "Python standard library source",
         "Medical Decathlon")
LOADERS = {"CIFAR-10": "datasets.cifar10", "CIFAR-100": "datasets.cifar100", "Oxford-IIIT Pet": "datasets.pets",
           "Imagenette": "datasets.imagenette", "Omniglot": "datasets.omniglot",
           "Medical Decathlon": "datasets.hippocampus", "tiny Shakespeare": "corpora.shakespeare",
           "Emily Dickinson poems": "corpora.dickinson", "GloVe": "vocabulary.glove",
           "Google analogies": "claims.analogies", "Free Spoken Digit Dataset": "sound.fsdd"}
OWN = "VSE's own folder, notebook and challenges"
TABLES = {"Image classification": ["image classification", "scenes"],
          "Detection, segmentation, depth": ["object detection", "segmentation", "medical images", "people", "depth"],
          "Faces, gaze and pose": ["faces", "gaze", "pose"],
          "Making pictures: generative models, style transfer": ["generative models", "style transfer"],
          "Video": ["video"],
          "Text": ["text"],
          "Speech and music": ["speech and music"],
          "Time series, recommendation, biology": ["time series", "recommendation", "computational biology"],
          "Libraries: reinforcement learning, adversarial examples": ["reinforcement learning",
                                                                      "adversarial examples"],
          OWN: ["course", "regression"]}


def tables(table):
    "{heading: rows}, each row once: the start, then the rest by the first of its tasks, VSE's own last."
    first = table.task.str.split("; ").str[0]
    rest = table[~table.index.isin(START)]
    own = rest.index.str.startswith("VSE") | first[rest.index].isin(TABLES[OWN])
    found = {"": table.loc[list(START)]}
    for heading, its in TABLES.items():
        found[heading] = pd.concat([rest[~own & (first[rest.index] == task)] for task in its])
    return found | {OWN: rest[own]}


def to_load(row):
    "The first way in the column `load`, as a line to paste; what has none is loaded by hand."
    kind, way = (part.strip() for part in row.load.split("; ")[0].split(":", 1))
    what, more = re.fullmatch(r"(.*?)(?: \((.*)\))?", way).groups()
    if kind == "coursekit":
        return f"`coursekit.{LOADERS[what]}(ws)`"
    if kind in ("torchvision", "torchaudio"):
        return f"`{kind}.datasets.{what}({', '.join(filter(None, ['root', more, 'download=True']))})`"
    if kind == "hub":
        return f'`datasets.load_dataset("{what}")`'
    if kind == "pip" or (more or "").startswith("kaggle "):
        return f"`{more or 'pip install ' + what}`"
    if what.startswith("git clone "):
        return f"`{what}`"
    if what.startswith("http"):
        return f"`curl -LO {what}`" + (f", then `{more}` in it" if more else "")
    if kind == "none":
        return what
    with_what = {"form": ", with a form", "login": ", with an account"}.get(kind, "")
    return f"by hand{with_what}: [{urlsplit(row.home).netloc.removeprefix('www.')}]({row.home})"


def size(gb):
    "In the unit that people say; nothing where it is not known, or nothing to download."
    for unit, n in ("GB", gb), ("MB", 1e3 * gb), ("kB", 1e6 * gb):
        if n >= 1:
            return f"{n:.3g} {unit}"
    return ""


def cells(row):
    "The cells of a set, in the order of `COLUMNS`."
    examples = "" if pd.isna(row.examples) else f"{row.examples:,}"
    return f"[{row.Index}]({row.home})", examples, size(row.size_gb), row.licence, row.commercial, to_load(row)


def markdown(rows):
    "A table, and its pitfalls in a fold."
    lines = [COLUMNS, ["---", "---:", "---:", "---", "---", "---"], *map(cells, rows)]
    pitfalls = "\n".join(f"- **{row.Index}**: {row.pitfalls}" for row in rows)
    table = "\n".join("| " + " | ".join(text.replace("|", r"\|") for text in line) + " |" for line in lines)
    return f"{table}\n\n<details><summary>Pitfalls</summary>\n\n{pitfalls}\n\n</details>\n"


def links(table):
    "The page."
    parts = []
    for heading, rows in tables(table).items():
        parts += [f"## {heading}\n"] * bool(heading) + [markdown(list(rows.itertuples()))]
    return "\n".join([HEAD, *parts, LOOK])


if __name__ == "__main__":
    Path("data_links.md").write_text(links(catalogue()), encoding="utf-8")
