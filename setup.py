"All package metadata comes from settings.ini."
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup

config = ConfigParser(delimiters=["="])
config.read(Path(__file__).with_name("settings.ini"), encoding="utf-8")
facts = config["DEFAULT"]
run, cluster, timm, dev, browser, site = (facts[f"{extra}_requirements"].split()
                                          for extra in ("run", "cluster", "timm", "dev", "browser", "site"))

setup(
    name=facts["name"],
    version=facts["version"],
    description=facts["description"],
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=facts["author"],
    license=facts["license"],
    keywords=facts["keywords"].split(),
    url=f"https://github.com/{facts['repo']}",
    python_requires=f">={facts['min_python']}",
    packages=["coursekit"],
    package_data={"coursekit": ["catalogue.csv", "page.html.j2", "references.json", "sources.json"]},
    install_requires=facts["requirements"].split(),
    extras_require={"run": run, "cluster": cluster, "timm": timm, "dev": run + cluster + dev, "browser": browser,
                    "site": site},
    entry_points={"console_scripts": ["coursekit = coursekit.cli:main"]},
)
