"""Make an environment with Colab's versions, install coursekit's wheel into it as a student does, and name each
package that this changed; run by `make colab`."""
import argparse
import os
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CUDA = re.compile(r"(nvidia|cuda|cupy|triton|cucim)|.*-cu12$")  # Colab's own builds of these resolve nowhere else


def versions(text, # what `pip freeze` prints
            ):     # {package: version}, without local versions and addresses
    "Read a freeze; names are written one way: lower case, with hyphens."
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name,
            version in re.findall(r"^([\w.-]+)==([^+\s]+)", text, re.M)}


def colab_versions():
    """{package: version} of Colab without its CUDA packages: tests/colab-freeze.txt, or the freeze that COLAB_FREEZE
    names."""
    text = Path(os.environ.get("COLAB_FREEZE", ROOT / "tests" / "colab-freeze.txt")).read_text(encoding="utf-8")
    return {name: version for name, version in versions(text).items() if not CUDA.match(name)}


def changes(before, after):
    "A sentence for each package that is not what it was; new ones are none."
    return [f"Installing coursekit changes Colab's {name} from {version} to {after.get(name, 'nothing')}."
            for name, version in before.items() if after.get(name) != version]


def run(*command, text=None):
    "What a command prints when it is given `text`; where it fails, it has said why and this ends."
    done = subprocess.run([*map(str, command)], input=text, stdout=subprocess.PIPE, text=True)
    return done.stdout if done.returncode == 0 else sys.exit(done.returncode)


def uv(*args, text=None):
    "`run` for uv."
    return run(sys.executable, "-m", "uv", *args, text=text)


def names():
    "What coursekit[run] asks for, without bounds, so that Colab's versions are taken whether or not they suffice."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    wanted = [config["DEFAULT"][key] for key in ("requirements", "run_requirements")]
    return ["pip", *re.findall(r"^[\w-]+", "\n".join(wanted).strip(), re.M)]


def held(python,  # the interpreter to resolve for
         colab,   # {package: version}
        ):        # lines for a requirements file
    """All that coursekit[run] needs and Colab has, at Colab's versions; torch brings the CUDA packages that it was
    built for."""
    constraints = python.parents[1] / "colab.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name, version in colab.items()), encoding="utf-8")
    found = versions(uv("pip", "compile", "-q", "--no-header", "--no-annotate", "--python", python, "-c", constraints,
                        "-", text="\n".join(names())))
    return [f"{name}=={version}" for name, version in found.items() if name in colab or CUDA.match(name)]


def installed(python):
    "{package: version} of an environment."
    return versions(uv("pip", "freeze", "-q", "--python", python))


def fresh_wheel(folder):
    "coursekit's wheel as it would be released: built from the source archive."
    shutil.rmtree(folder, ignore_errors=True)
    uv("build", "-q", "--out-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


def main(venv,    # its folder
         version, # of Python, or the path of one
        ):
    "Build the environment, or bring it back to Colab's versions; install the wheel with plain pip, and compare."
    python = venv / "bin" / "python"
    uv("venv", "-q", "--allow-existing", "--python", version, venv)
    (venv / "held.txt").write_text("\n".join(held(python, colab_versions())), encoding="utf-8")
    uv("pip", "sync", "--python", python, venv / "held.txt")  # takes out what the last run put in
    before = installed(python)
    run(python, "-m", "pip", "install", "-q", f"{fresh_wheel(venv / 'wheels')}[run]")
    after = installed(python)
    if told := changes(before, after):
        sys.exit("\n".join(told))
    print("Installing coursekit changes no package of Colab's; with it come",
          ", ".join(sorted(after.keys() - before.keys())))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv", type=Path)
    parser.add_argument("--python", default="3.13")
    args = parser.parse_args()
    main(args.venv.resolve(), args.python)
