"""Build the documentation from the docstrings: `python .ci/docs.py [DIRECTORY]`, by default `build/docs`.

Warnings of pdoc are errors, and so are links that lead nowhere.
"""

from __future__ import annotations

import ast
import re
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from types import FunctionType
from typing import Any

try:
    import pdoc

    import podero_async.backfill
    import podero_async.dask
    import podero_async.frames
    import podero_async.guide
    import podero_async.observer
    import podero_async.otel
    import podero_async.publish
    import podero_async.report
    import podero_async.testing.pytest
except ModuleNotFoundError as error:
    sys.exit(f"{error}: install pdoc and all extras, as the second command of README.md does")

PACKAGES = (
    "podero_async",
    "podero_async.guide",
    "podero_async.backfill",
    "podero_async.dask",
    "podero_async.frames",
    "podero_async.observer",
    "podero_async.otel",
    "podero_async.publish",
    "podero_async.report",
    "podero_async.testing",
    "podero_async.testing.pytest",
)
EXPLAINED = ("podero_async._paging",)
"""Packages with a private name whose docstrings explain how the library works."""

INCLUDED = re.compile(r'^\[the (tree|table|commands)(?: of "(\w+)")? in (\S+)\]$', re.MULTILINE)
"""A line of the guide in whose place the pages show a text of another file. `help()` shows the line."""
TEXTS = {"tree": r"^PoderoError\n(?: .*\n)+", "table": r"(?:^\|.*\n)+", "commands": r"^```sh\n.*?^```\n"}

COMMON_WORDS = (
    "a|an|and|are|at|be|by|can|do|does|for|from|get|has|have|how|i|if|in|is|it|its|me|my|of|on|or|s|should|that|the|there|this"
    "|to|was|we|what|when|where|which|why|will|with|you"
)


def show_sources() -> None:
    """Set `__module__` of public names back to the module that defines them, since pdoc reads its source text."""
    for name, module in list(sys.modules.items()):
        if name.startswith("podero_async.") and name not in PACKAGES:
            for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    getattr(module, node.name).__module__ = name


def include(line: re.Match[str]) -> str:
    """Return the text that a line of the guide stands for."""
    kind, section, path = line.groups()
    text = (
        (Path(__file__).parents[1] / path)
        .read_text(encoding="utf-8")
        .partition(f"## {section}\n" if section else '"""')[2]
    )
    found = re.search(TEXTS[kind], text, re.MULTILINE | re.DOTALL if kind == "commands" else re.MULTILINE)
    if found is None:
        raise ValueError(f"nothing to include: {line[0]}")
    return f"```text\n{found[0]}```" if kind == "tree" else found[0]


def sections(entry: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Split an entry of the search index at its headings, so that a search leads to the section that has the answer."""
    text, *rest = re.split(r'<h1 id="([^"]+)">(.*?)</h1>', entry.get("doc", ""))
    yield {**entry, "doc": text}
    if entry["kind"] == "module":
        for anchor, title, body in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
            plain = re.sub(r"<[^>]+>", "", title)
            fullname = f"{entry['fullname']}: {plain}"
            yield {
                "fullname": fullname,
                "modulename": entry["modulename"],
                "qualname": anchor,
                "kind": "section",
                "doc": body,
            }


def adopt_members() -> None:
    """Let public classes own the methods that they inherit from private classes, which have no page."""
    for name in PACKAGES:
        module = sys.modules[name]
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            if isinstance(value, type):
                private = [
                    base for base in value.__mro__ if "._" in base.__module__ and base.__name__ not in module.__all__
                ]
                for base in private:
                    for member, plain in vars(base).items():
                        if isinstance(plain, FunctionType) and not member.startswith("_"):
                            setattr(value, member, plain)


def mend_links(page: Path) -> None:
    """Let links to inherited members, which have no place of their own, lead to their class."""
    text = page.read_text(encoding="utf-8")
    places = set(re.findall(r'id="([^"]+)"', text))

    def mended(link: re.Match[str]) -> str:
        owner = link[1].rpartition(".")[0]
        return link[0] if link[1] in places or owner not in places else f'href="#{owner}"'

    page.write_text(re.sub(r'href="#([\w.]+)"', mended, text), encoding="utf-8")


def tune_search(script: Path) -> None:
    """Let the search ignore words that most questions have, and prefer sections to single names.

    "How do I" would find all headings that begin so, and a word that is a field's name only the field.
    """
    text = script.read_text(encoding="utf-8")
    for old, new in (
        (
            "searchIndex.search(term, {",
            f"searchIndex.search(term.replace(/\\b({COMMON_WORDS})\\b/gi, ' ').trim() || term, {{",
        ),
        ("expand: true\n    })", "expand: true\n    }).sort((one, other) => weight(other) - weight(one))"),
        (
            "return (term)",
            "const weight = found => found.score * (found.doc.kind === 'section' ? 2 : 1);\n\n    return (term)",
        ),
    ):
        if text.count(old) != 1:
            raise RuntimeError(f"{script} has no {old!r}: see the template search.js.jinja2 of pdoc")
        text = text.replace(old, new)
    script.write_text(text, encoding="utf-8")


def broken_links(directory: Path) -> list[str]:
    """Return the links that lead to no page or to no place in it, and the names in the guide that pdoc did not link."""
    pages = {page.resolve(): page.read_text(encoding="utf-8") for page in sorted(directory.rglob("*.html"))}
    broken = []
    for page, text in pages.items():
        name = page.relative_to(directory.resolve())
        for link in re.findall(r'<a [^>]*?href="(?!\w+:|\$)([^"]*)"', text):
            path, _, anchor = link.partition("#")
            target = pages.get((page.parent / path).resolve() if path else page)
            if target is None or (anchor and f'id="{anchor}"' not in target):
                broken.append(f"{name}: {link}")
        if "guide" in str(name):
            unlinked = re.findall(r"<code>(podero_async[\w.]*)</code>(?!</a>)", text)
            broken += [f"{name}: `{each}` is no documented name" for each in unlinked]
    return broken


def main(directory: str = "build/docs") -> int:
    """Write the pages, and return 1 if a link is broken."""
    warnings.simplefilter("error")
    show_sources()
    adopt_members()
    for page in iter_modules(podero_async.guide.__path__, "podero_async.guide."):
        module = import_module(page.name)
        module.__doc__ = INCLUDED.sub(include, module.__doc__ or "")
    make_index = pdoc.render.make_index
    pdoc.render.make_index = lambda *given: [part for entry in make_index(*given) for part in sections(entry)]
    pdoc.render.configure(docformat="google", footer_text=f"podero_async {podero_async.__version__}")
    pdoc.pdoc(*PACKAGES, *EXPLAINED, output_directory=Path(directory))
    for written in Path(directory).rglob("*.html"):
        mend_links(written)
    tune_search(Path(directory) / "search.js")
    broken = broken_links(Path(directory))
    for link in broken:
        print(f"broken link: {link}", file=sys.stderr)
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
