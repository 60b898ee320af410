"Write version and repository of settings.ini into badges, install cells and CITATION.cff; run by `make stamp`."
import re
from configparser import ConfigParser
from pathlib import Path

root = Path(__file__).resolve().parents[1]


def stamped(text, repo, version):
    "`text` with the repository and tag of each badge, install address and citation replaced."
    text = re.sub(r"(?m)^version: .*$", f"version: {version}", text)
    text = re.sub(r"(?m)^repository-code: .*$", f"repository-code: https://github.com/{repo}", text)
    text = re.sub(r"(colab\.research\.google\.com/github)/[^/]+/[^/]+/blob/v[^/]+/",
                  rf"\1/{repo}/blob/v{version}/", text)
    return re.sub(r"github\.com/[^/\s]+/[^/\s]+/archive/refs/tags/v[0-9a-z.]+\.tar\.gz",
                  f"github.com/{repo}/archive/refs/tags/v{version}.tar.gz", text)


def files():
    "The files that carry a badge, an install address or a citation."
    return [root / "README.md", root / "CITATION.cff", root / "docs" / "site" / "index.md",
            *sorted((root / "nbs").rglob("*.ipynb"))]


def facts():
    "(repo, version) of settings.ini."
    config = ConfigParser(delimiters=["="])
    config.read(root / "settings.ini", encoding="utf-8")
    return config["DEFAULT"]["repo"], config["DEFAULT"]["version"]


if __name__ == "__main__":
    for path in files():
        old = path.read_text(encoding="utf-8")
        new = stamped(old, *facts())
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(path.relative_to(root))
