"""The catalogue: every name of the course briefs, each fact with its source, one page of links, and what can really
be loaded."""
import re
import sys

import pytest
from conftest import ROOT

from coursekit.fetch import catalogue
from coursekit.workspace import sources

sys.path.insert(0, str(ROOT / "tools"))
from data_links import links

TABLE = catalogue()

# Every dataset that the briefs name, or whose task they name, and those that later lessons need.
NAMED = {
    "CS230": """ImageNet; MNIST; CIFAR-10; CIFAR-100; COCO; Pascal VOC; Open Images; SQuAD;
        Google Books n-grams; Yelp Open Dataset;
        Yahoo Finance API; YouTube-8M; Moments in Time; Kinetics-600; Million Song; DeepBind;
        CelebA; MovieLens; Netflix Prize; CleverHans; OpenAI Gym;
        CycleGAN datasets; WikiArt;
        Kaggle challenges; Speech Commands""",
    "CS230 notes": "ImageNet; WikiArt; Speech Commands",
    "DD2424": """Oxford-IIIT Pet; CIFAR-10; CIFAR-100; Imagenette; Emily Dickinson poems; tiny Shakespeare;
        Project Gutenberg; GloVe;
        word2vec GoogleNews; LFW; Places; COCO;
        Caltech Pedestrian; Daimler; MPII Human Pose; Sports-1M; NYU Depth V2;
        MPIIGaze; Tatoeba sentence pairs; Names by language; CMU AN4 Census; LibriSpeech;
        Folk music (The Session)""",
    "VSE": """Medical Decathlon; thispersondoesnotexist; Pokemon images; EMNIST; im2latex-100k; Common Voice;
        Cornell Movie-Dialogs; UCF101;
        VSE Drive folder; VSE Colab mount example;
        VSE: fitting function 1D-1D; VSE: fitting function 5D-5D; VSE: glasses or no glasses;
        VSE: MICS MNIST; VSE: sword video classification; Kaggle challenges""",
    "later lesson": "CIFAR-100; Imagenette; Omniglot; Medical Decathlon; Project Gutenberg; Emily Dickinson poems; "
                    "Python standard library source",
}
TASKS = {"image classification", "object detection", "segmentation", "faces", "people", "scenes", "pose", "depth",
         "gaze", "video", "text", "time series",
         "speech and music", "computational biology", "recommendation", "generative models", "adversarial examples",
         "style transfer", "medical images",
         "reinforcement learning", "regression", "course"}
WAYS = {"coursekit", "torchvision", "torchaudio", "fastai", "hub", "pip", "web", "form", "login"}


@pytest.mark.parametrize("brief", NAMED)
def test_every_name_of_a_brief_is_there(brief):
    names = {n.strip() for n in NAMED[brief].split(";")}
    assert names <= set(TABLE.index[TABLE.brief.map(lambda b: brief in b.split("; "))]), names - set(TABLE.index)


def test_the_courses_own_links_are_the_briefs():
    drive, colab = "1_KqzmBVvZKwvLi0a1W3P6wPa-IgwnmLP", "1Ummw01RU9TeSnmoUIBAPR88wfTpLvZUD"
    assert drive in TABLE.home["VSE Drive folder"] and colab in TABLE.home["VSE Colab mount example"]
    keys = ("81c8fa412fb840c0b34fe86e7dab174f 3eb9e2aa517a414aacd0c9468281a7c2 a232e4d3385b46c68921719e547b45e1 "
            "073954a6c84a4970903d5a340df28695 d6ca6181f7eb4acc93f418f7b43cbece")
    assert all(f"https://www.kaggle.com/t/{key}" in set(TABLE.home) for key in keys.split())


@pytest.mark.parametrize("name", TABLE.index)
def test_a_row(name):
    row = TABLE.loc[name]
    assert set(row.task.split("; ")) <= TASKS and row.licence and row.commercial in ("yes", "no", "unclear")
    assert row.size_gb >= 0 or "size not published" in row.pitfalls, "a size, or why there is none"
    urls = [row.home, *row.source.split("; ")]
    assert all(re.fullmatch(r"https?://[\w.-]+(/\S*)?", u) for u in urls), urls
    assert row.load and {way.split(":")[0].strip() for way in row.load.split("; ")} <= WAYS, row.load
    assert "\u2014" not in " ".join(map(str, row)) and not re.search(r"/(root|work|tmp|home)/", row.source + row.home)


def test_all_tasks_are_covered_and_no_name_comes_twice():
    assert {t for cell in TABLE.task for t in cell.split("; ")} == TASKS and TABLE.index.is_unique


def ways(kind):
    "What the rows say behind `kind:`."
    return [(name, way.split(":", 1)[1].strip()) for name, load in TABLE.load.items() for way in load.split("; ")
            if way.startswith(kind + ":")]


def test_what_coursekit_fetches_is_what_it_says():
    assert {what for _, what in ways("coursekit")} == set(sources()) == {name for name, _ in ways("coursekit")}
    for name, source in sources().items():
        assert TABLE.size_gb[name] == pytest.approx(sum(a["bytes"] for a in source["archives"]) / 1e9, rel=0.05), name
        for a in source["archives"]:
            assert re.fullmatch(r"sha256:[0-9a-f]{64}", a["hash"]) and a["bytes"] > 0 \
                and len(set(a["urls"])) == len(a["urls"])
            assert all(u.startswith("https://") for u in a["urls"])


def test_the_torchvision_classes_and_fastai_urls_exist():
    import torchvision.datasets
    from fastai.data.external import URLs

    assert not [(n, w) for n, w in ways("torchvision") if not hasattr(torchvision.datasets, re.match(r"\w+", w)[0])]
    assert not [(n, w) for n, w in ways("fastai") if not hasattr(URLs, re.search(r"URLs\.(\w+)", w)[1])]


def test_data_links_is_written_from_the_catalogue():
    page = (ROOT / "data_links.md").read_text()
    assert page == links(TABLE), "run make export"
    assert page.index("VSE Drive folder") < page.index("## Adversarial examples") \
        and all(f"**[{name}](" in page for name in TABLE.index)
