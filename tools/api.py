"""What each module offers, as pages of the site: names, docstrings and docments, read from the code of `coursekit/`
without importing it, so that no torch is needed."""
import ast
import io
import re
import tokenize
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    "A name that a module offers."
    name: str             # behind its class and a dot, if it is in one
    kind: str             # function, class, method, property or data, as Sphinx calls them
    signature: str = ""   # from the bracket on
    says: str = ""        # its docstring
    parameters: dict = field(default_factory=dict)  # {name: comment}, those that have one
    returns: str = ""     # the comment behind the type of what comes back
    members: tuple = ()   # the entries of a class
    cell: str = ""        # the number of the cell that defines it
    notebook: str = ""    # its path in nbs, without .ipynb


def comments(source):
    "{line: the comment on it} of code."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string[1:].strip() for t in tokens if t.type == tokenize.COMMENT}


def beside(places, # {line: name}
           said    # {line: comment}
           ):      # {name: comment}
    "What comments say of names, as docments reads them: on a name's line, else on the lines right above it."
    found = {}
    for line, name in places.items():
        first = line
        while line not in said and first - 1 in said and first - 1 not in places:
            first -= 1
        found[name] = said.get(line) or " ".join(said[k] for k in range(first, line))
    return {name: comment for name, comment in found.items() if comment}


def docstring(node):
    "A docstring on one line, or ''."
    return " ".join((ast.get_docstring(node) or "").split())


def function(node, said, kind="function", name=None):
    "The entry of a function or method."
    a = node.args
    named = [*a.posonlyargs, *a.args, *filter(None, [a.vararg]), *a.kwonlyargs, *filter(None, [a.kwarg])]
    places = {arg.lineno: arg.arg for arg in named} | ({node.returns.lineno: "return"} if node.returns else {})
    documented = beside(places, said)
    returns = documented.pop("return", "")
    if kind != "function" and a.args:
        a.args = a.args[1:]  # self
    back = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return Entry(name or node.name, kind, f"({ast.unparse(a)}){back}", docstring(node), documented, returns)


def has(node, decorator):
    "Whether a class or function has a decorator of this name, called or not."
    return any(re.match(rf"(\w+\.)*{decorator}\b", ast.unparse(d)) for d in node.decorator_list)


def fields(node, said):
    "(signature, {field: comment}) of a dataclass."
    own = [n for n in node.body if isinstance(n, ast.AnnAssign) and "ClassVar" not in ast.unparse(n.annotation)]
    return f"({', '.join(ast.unparse(n) for n in own)})", beside({n.lineno: n.target.id for n in own}, said)


def klass(node, said):
    "The entry of a class: its parameters, and the methods that have something to say."
    methods = {n.name: n for n in node.body if isinstance(n, ast.FunctionDef)}
    signature, documented = fields(node, said) if has(node, "dataclass") else ("", {})
    if "__init__" in methods:
        init = function(methods["__init__"], said, "method")
        signature, documented = init.signature, init.parameters
    members = [function(n, said, "property" if has(n, "property|cached_property") else "method")
               for name, n in methods.items() if not name.startswith("_") and ast.get_docstring(n)]
    return Entry(node.name, "class", signature, docstring(node), documented, members=tuple(members))


def data(node, said):
    "The entry of a constant."
    value = ast.unparse(node.value)
    return Entry(node.targets[0].id, "data", f" = {value}" if len(value) < 60 else "",
                 beside({node.lineno: "it"}, said).get("it", ""))


def entries(source # of a module that nbdev wrote
            ):     # {name: Entry} of all that it defines at its top, in its order
    "The functions, classes and constants of a module, each with the cell that defines it."
    said, found = comments(source), {}
    cells = {line: text.split() for line, text in said.items() if re.match(r"%% \S+\.ipynb #\w+$", text)}
    said = {line: text for line, text in said.items() if line not in cells and not text.startswith("noqa")}
    for node in ast.parse(source).body:
        entry = (function(node, said) if isinstance(node, ast.FunctionDef) else
                 klass(node, said) if isinstance(node, ast.ClassDef) else
                 data(node, said) if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) else None)
        above = [line for line in cells if line < node.lineno]
        if entry and above:
            _, path, cell = cells[max(above)]
            found[entry.name] = Entry(**{**vars(entry), "cell": cell[1:],
                                         "notebook": path.removeprefix("../nbs/").removesuffix(".ipynb")})
    return found


def offered(source):
    "The names in a module's `__all__`."
    return next(ast.literal_eval(n.value) for n in ast.parse(source).body
                if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__")


def imported(source):
    "{name: module of coursekit that it comes from} of a module's imports."
    nodes = [n for n in ast.parse(source).body if isinstance(n, ast.ImportFrom) and n.module]
    own = [n for n in nodes if n.level or n.module.startswith("coursekit.")]
    return {a.name: n.module.removeprefix("coursekit.") for n in own for a in n.names}


@dataclass(frozen=True)
class Module:
    "A module's page."
    name: str
    notebook: str  # that makes it: its path in nbs, without .ipynb
    own: list      # entries, in the order of `__all__`
    handed: dict   # {name: module it comes from} of what it hands on


def modules(folder: Path):
    "The modules that offer something, lessons first, by the number of their notebook."
    sources = {p.stem: p.read_text(encoding="utf-8") for p in sorted(folder.glob("[!_]*.py"))}
    found = {name: entries(source) for name, source in sources.items()}
    handed = {name: {n: home for n, home in imported(source).items() if n in offered(source)}
              for name, source in sources.items()}
    asked = {(home, n) for names in handed.values() for n, home in names.items()}
    result = []
    for name, source in sources.items():
        wanted = dict.fromkeys([*offered(source), *(n for home, n in sorted(asked) if home == name)])
        own = [found[name][n] for n in wanted if n in found[name]]
        if own or handed[name]:
            notebook = re.search(r"File to edit: \.\./nbs/(\S+)\.ipynb", source)[1]
            result.append(Module(name, notebook, own, handed[name]))
    return sorted(result, key=lambda m: (m.notebook.startswith("kit/"), m.notebook))


# As Markdown

def plain(text):
    "Text in which Markdown finds nothing but code in backticks."
    return re.sub(r"(`[^`]*`)|([\\*_\[\]<>#|$~{}^])", lambda m: m[1] or "\\" + m[2], text)


def definition(entry, depth=0):
    "An entry as a directive of Sphinx's Python domain, its parameters as fields."
    colons = ":" * (5 - depth)
    value = [f":value: {entry.signature[3:]}"] if entry.kind == "data" and entry.signature else []
    made = [f"Made in [{entry.notebook}](#cell-{entry.cell})."] if entry.cell else []
    lines = [f"{colons}{{py:{entry.kind}}} {entry.name}{'' if entry.kind in ('data', 'property') else entry.signature}",
             *value, "", plain(entry.says), "",
             *(f":param {name}: {plain(comment)}" for name, comment in entry.parameters.items()),
             *([f":returns: {plain(entry.returns)}"] if entry.returns else []), "",
             *(definition(m, depth + 1) for m in entry.members), *made, colons, ""]
    return "\n".join(lines)


def listed(module, # of the entry
           entry):
    "An entry as a line of a list."
    return f"- {{py:obj}}`~coursekit.{module}.{entry.name}`" + f": {plain(entry.says)}" * bool(entry.says)


def handed_on(module, found):
    "The lines for what a module hands on from others."
    own = {(m.name, entry.name): entry for m in found for entry in m.own}
    return [listed(home, own[home, name]) for name, home in module.handed.items()]


def page(module, found, title, about):
    "A module's page; `title` and `about` are its notebook's."
    about = re.sub(r"\]\((?!http)", f"](../nbs/{module.notebook.rpartition('/')[0]}/", about)  # as seen from here
    handed = handed_on(module, found)
    return "\n".join([f"# coursekit.{module.name}", "", f"From [{title}](../nbs/{module.notebook}.ipynb). {about}", "",
                      f":::{{py:module}} coursekit.{module.name}", ":::", "", *map(definition, module.own),
                      *(["## From the kit", "", f"`coursekit.{module.name}` hands these on, too.", "", *handed]
                        if handed else []), ""])


def index(found, title):
    "The page that lists all names; `title` gives a notebook's title by its path."
    lines = []
    for module in found:
        lines += [f"## [coursekit.{module.name}](api/{module.name}.md)", "",
                  f"From [{title(module.notebook)}](nbs/{module.notebook}.ipynb).", "",
                  *(listed(module.name, entry) for entry in module.own), *handed_on(module, found), ""]
    return "\n".join(lines)
