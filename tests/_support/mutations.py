"""Makes the mutants of a module: mutmut's changes, and changes of the store's SQL.

Constants and properties are changed, too, which mutmut itself does not do. Annotations, decorators, imports, `__all__` and
messages are left alone, since no promise depends on the wording of an error or a log line.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import attrs
import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

__all__ = ["Mutant", "mutants_of"]

SQL = re.compile(r"\b(SELECT|UPDATE|DELETE|INSERT|WHERE|BETWEEN|DISTINCT)\b")
SQL_SWAPS = [
    (r" AND ", " OR "),
    (r" OR (?!REPLACE)", " AND "),
    (r"\bNOT (?=EXISTS|\w+\.)", ""),
    (r" IS NULL", " IS NOT NULL"),
    (r" IS DISTINCT FROM ", " IS NOT DISTINCT FROM "),
    (r" >= ", " > "),
    (r" <= ", " < "),
    (r" > ", " >= "),
    (r" < ", " <= "),
    (r" <> ", " = "),
    (r" = ", " <> "),
    (r" \+ 1", ""),
    (r"\b1\b", "2"),
    (r"\bmin\(", "max("),
    (r"\bmax\(", "min("),
    (r" IN \(", " NOT IN ("),
    (r"\bANTI JOIN\b", "SEMI JOIN"),
    (r"\bLEFT JOIN\b", "JOIN"),
    (r"\bDISTINCT (?!FROM)", ""),
    (r"\bNULL$", "now()"),
    (r", (?=\w+ = )", " -- "),
]


@attrs.frozen
class Mutant:
    """The text of a module with one change."""

    line: int
    text: str
    change: str


class _Changes(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, cst.CSTNode, cst.CSTNode]] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Annotation | cst.Decorator | cst.Import | cst.ImportFrom) or _is_declaration(node):
            return False
        line = self.get_metadata(PositionProvider, node).start.line
        self.found += [(line, node, changed) for changed in _changed(node)]
        return True


def _is_declaration(node: cst.CSTNode) -> bool:
    if not isinstance(node, cst.Assign):
        return False
    target, value = node.targets[0].target, node.value
    is_typing = isinstance(value, cst.Call) and isinstance(value.func, cst.Name) and value.func.value == "TypeVar"
    return is_typing or (isinstance(target, cst.Name) and target.value == "__all__")


def _changed(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    if isinstance(node, cst.SimpleString | cst.FormattedStringText):
        for text in _changed_sql(node.value):
            yield node.with_changes(value=text)
    if _is_message(node):
        return
    for kind, operator in mutation_operators:
        if isinstance(node, kind):
            yield from (changed for changed in operator(node) if not _drops_message(node, changed))


def _changed_sql(text: str) -> Iterator[str]:
    if SQL.search(text):
        for pattern, instead in SQL_SWAPS:
            for match in re.finditer(pattern, text, re.MULTILINE):
                yield text[: match.start()] + instead + text[match.end() :]


def _is_message(node: cst.CSTNode) -> bool:
    """Return whether a node is a text with a space in it."""
    if isinstance(node, cst.FormattedString):
        return any(isinstance(part, cst.FormattedStringText) and " " in part.value for part in node.parts)
    return isinstance(node, cst.ConcatenatedString) or (isinstance(node, cst.SimpleString) and " " in node.value)


def _drops_message(node: cst.CSTNode, changed: cst.CSTNode) -> bool:
    if not (isinstance(node, cst.Call) and isinstance(changed, cst.Call)):
        return False
    kept = [argument.value for argument in changed.args]
    return any(_is_message(argument.value) and argument.value not in kept for argument in node.args)


def mutants_of(path: Path) -> list[Mutant]:
    """Return all mutants of a file, each change once."""
    text = path.read_text()
    wrapper = MetadataWrapper(cst.parse_module(text))
    changes = _Changes()
    wrapper.visit(changes)
    mutants: dict[str, Mutant] = {}
    for line, node, changed in changes.found:
        mutated = cst.ensure_type(wrapper.module.deep_replace(node, changed), cst.Module).code
        if mutated != text:
            mutants.setdefault(mutated, Mutant(line, mutated, _difference(text, mutated)))
    return list(mutants.values())


def _difference(text: str, mutated: str) -> str:
    lines = difflib.unified_diff(text.splitlines(), mutated.splitlines(), n=0, lineterm="")
    kept = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    return "\n".join(line[0] + " " + line[1:].strip() for line in kept)
