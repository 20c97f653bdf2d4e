"""Build the API documentation from the docstrings: `python .ci/docs.py [DIRECTORY]`, by default `build/docs`.

Warnings of pdoc are errors.
"""

from __future__ import annotations

import ast
import sys
import warnings
from pathlib import Path

import pdoc

import podero_async.backfill
import podero_async.frames
import podero_async.observer
import podero_async.otel
import podero_async.publish
import podero_async.testing.pytest

PACKAGES = (
    "podero_async",
    "podero_async.backfill",
    "podero_async.frames",
    "podero_async.observer",
    "podero_async.otel",
    "podero_async.publish",
    "podero_async.testing",
    "podero_async.testing.pytest",
)
GUIDES = ("podero_async._paging",)
"""Packages with a private name whose docstrings explain how the library works."""


def show_sources() -> None:
    """Set `__module__` of public names back to the module that defines them, since pdoc reads its source text."""
    for name, module in list(sys.modules.items()):
        if name.startswith("podero_async.") and name not in PACKAGES:
            for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    getattr(module, node.name).__module__ = name


def main(directory: str = "build/docs") -> None:
    """Write the pages."""
    warnings.simplefilter("error")
    show_sources()
    pdoc.render.configure(docformat="google", footer_text=f"podero_async {podero_async.__version__}")
    pdoc.pdoc(*PACKAGES, *GUIDES, output_directory=Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
