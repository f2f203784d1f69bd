#!/usr/bin/env python3
"""Checks the documentation against the tree: every path that a Markdown file names in backquotes exists, every
`mete` option that the README shows is known to the sources, docs/results.md is what bench/results says, and the README
has at most 150 lines.

Exit status 0 if all hold, 1 with one line per problem."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PATH = re.compile(r"`((?:src|apps|tests|bench|fuzz|docs|tools|cmake|\.ci)/[A-Za-z0-9_./\-]*)`")
OPTION = re.compile(r"(?<=\s)(--[a-z][a-z0-9\-]*)")


def check():
    problems = []
    documents = [p for p in ROOT.glob("*.md")] + sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "bench").glob("*.md"))
    sources = "\n".join(p.read_text() for p in sorted((ROOT / "apps").glob("*.cpp")))
    for document in documents:
        rel = document.relative_to(ROOT)
        text = document.read_text()
        for number, line in enumerate(text.split("\n"), 1):
            for path in PATH.findall(line):
                if not (ROOT / path).exists():
                    problems.append(f"{rel}:{number}: no such path {path}")
            if "mete " in line and rel.name == "README.md" and rel.parent == pathlib.Path("."):
                for option in OPTION.findall(line):
                    if option not in sources and option not in ("--help", "--version"):
                        problems.append(f"{rel}:{number}: no command has the option {option}")
    made = subprocess.run([sys.executable, ROOT / "tools" / "make_results.py", "--check"], capture_output=True, text=True)
    if made.returncode != 0:
        problems.append((made.stdout + made.stderr).strip())
    readme = (ROOT / "README.md").read_text().count("\n")
    if readme > 150:
        problems.append(f"README.md: {readme} lines, at most 150")
    return problems


if __name__ == "__main__":
    found = check()
    for problem in found:
        print(problem)
    print(f"docs: {len(found)} problems")
    sys.exit(1 if found else 0)
