"Comments beside parameters and returns, where tools that read docments find them."
import importlib
import inspect
import io
import token
import tokenize

import pytest
from conftest import ROOT
from fastcore.docments import docments

MODULES = sorted(p.stem for p in (ROOT / "coursekit").glob("*.py") if not p.stem.startswith("_"))


def headers(source):
    "{line of a `def`: (name, whether it has ->, the comment behind its colon or '')}."
    found, tokens = {}, tokenize.generate_tokens(io.StringIO(source).readline)
    for t in tokens:
        if t.type == token.NAME and t.string == "def":
            line, name, depth, arrow = t.start[0], next(tokens).string, 0, False
            for t in tokens:
                depth += (t.string in "([{") - (t.string in ")]}") if t.type == token.OP else 0
                arrow |= t.string == "->" and not depth
                if t.string == ":" and not depth:
                    break
            after = next(tokens)
            found[line] = name, arrow, after.string.lstrip("# ") if after.type == token.COMMENT else ""
    return found


def misplaced(source):
    "The functions whose comment stands behind `):`, where it is the last parameter's."
    return [name for name, arrow, comment in headers(source).values() if comment and not arrow]


def public(module):
    "The functions of `__all__`, and the public methods of its classes, that the module defines itself."
    own = [x for x in (getattr(module, name) for name in module.__all__) if getattr(x, "__module__", "")
           == module.__name__]
    classes = [x for x in own if inspect.isclass(x)]
    methods = [f for c in classes for name, f in vars(c).items() if inspect.isfunction(f)
               and (name == "__init__" or not name.startswith("_"))]
    return [f for f in (inspect.unwrap(x) for x in own if callable(x) and x not in classes)
            if inspect.isfunction(f)] + [
        f for f in methods if f.__code__.co_filename == module.__file__]  # a dataclass makes its own


@pytest.mark.parametrize("source, names", [
    ("def f(a, # one\n     ): # what comes back\n    pass", ["f"]), ("def f(a): # what", ["f"]),
    ("class A:\n    def f(self): # what\n        pass", ["f"]),
    ("def f(a={1: 2}, # one\n     ) -> dict[str, int]: # what\n    pass", []), ("def f(a) -> 'x: y': # what", []),
    ("def f(a # one\n     ):\n    # what\n    pass", []),
    ("def f(a: (lambda: 1)): # what", ["f"])])
def test_the_checker_tells_a_return_from_a_parameter(source, names):
    assert misplaced(source if source.endswith("pass") else source + "\n    pass") == names


@pytest.mark.parametrize("name", MODULES)
def test_no_comment_stands_behind_a_bracket_without_a_type(name):
    assert misplaced((ROOT / "coursekit" / f"{name}.py").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", MODULES)
def test_docments_has_a_comment_where_it_belongs(name):
    module = importlib.import_module(f"coursekit.{name}")
    said = headers((ROOT / "coursekit" / f"{name}.py").read_text(encoding="utf-8"))
    for f in public(module):
        ours = said[next(line for line in range(f.__code__.co_firstlineno, f.__code__.co_firstlineno + 9)
                         if line in said)][2]
        read = dict(docments(f, returns=True))
        back = read.pop("return", None)
        assert (back or "") == ours and not (ours and ours in read.values()), (f"{f.__qualname__}: docments reads "
                                                                               f"{back!r} as what comes back")


def test_what_the_comments_say_of_parameters_and_returns():
    from coursekit import data, fetch, stats
    assert docments(fetch.fetch, returns=True)["return"] == "the folder, or the file of a single text"
    assert dict(docments(data.wilson_interval, returns=True)) == {"right": "how many of n were right", "n": None,
                                                                  "return": "low and high end, shares of 1"}
    assert dict(docments(data.resolution_score, returns=True)) == {"answers": "[(size, label, answer)]",
                                                                   "return": "a row a size"}
    assert docments(stats.ci_half_width, returns=True)["return"] == "not a number under three runs" \
        and stats.ci_half_width.__annotations__ == {"return": float}
