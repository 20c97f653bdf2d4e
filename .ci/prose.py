"""Count how often comments and docstrings use words that make a sentence hard to read: `python .ci/prose.py [PATH ...]`.

Prints the frequencies per 1,000 words and the lines that match a pattern of hard sentences. Exits with 1 if a frequency
lies outside its range. The ranges are those of well-known Python libraries.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

RANGES = {
    "what": (r"what", 0.0, 2.5),
    "where": (r"where", 0.0, 0.8),
    "who": (r"who|whom|whose|whoever", 0.0, 1.2),
    "if, when": (r"if|when", 11.8, 31.1),
}
"""A pattern of words, and the lowest and highest frequency per 1,000 words."""

HARD = re.compile(
    r"\b(what|who(ever|m|se)?) (is|are|was|has|comes|came|stands|waits|fails|cannot|needs|they|it|one|nobody)\b"
    r"|\b(is|are) (no|(?-i:none))\b"
    r"|\bwhere (it|that|there|nothing|this|they|one|nobody)\b"
    r"|\b(nobody|somebody|meanwhile|so many|whatever|whoever)\b",
    re.IGNORECASE,
)
"""Clauses that begin with a question word in place of a noun, and fillers."""

MAX_LISTED = 40


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the comments and docstrings of a module with their line numbers."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], re.sub(r"#+\s*(noqa|type|pragma|ruff)\b.*?(#|$)", "", token.string).lstrip("# ")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for offset, line in enumerate(node.value.value.splitlines()):
                if not line.startswith("# "):  # headings of the guide are questions in the users' own words
                    yield node.lineno + offset, line


def main(names: list[str]) -> int:
    """Print the counts of all modules below the given paths."""
    paths = [Path(name) for name in names]
    files = sorted({file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))})
    lines = [(file, number, text) for file in files for number, text in prose(file)]
    words = re.findall(r"[A-Za-z][A-Za-z'-]*", " ".join(text for *_, text in lines))
    is_bad = False
    for name, (pattern, low, high) in RANGES.items():
        found = sum(1 for word in words if re.fullmatch(pattern, word, re.IGNORECASE))
        frequency = 1000 * found / max(1, len(words))
        is_outside = not low <= frequency <= high
        is_bad |= is_outside
        mark = "outside" if is_outside else "within"
        print(f"{name:<10}{frequency:5.1f} per 1,000 words ({found} of {len(words):,}), {mark} {low} to {high}")
    hard = [(file, number, text) for file, number, text in lines if HARD.search(text)]
    print(f"{len(hard)} lines match a pattern of hard sentences")
    for file, number, text in hard[:MAX_LISTED]:
        print(f"  {file}:{number}: {text.strip()}")
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["podero_async", "tests", "benchmarks"]))
