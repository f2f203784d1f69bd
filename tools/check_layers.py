#!/usr/bin/env python3
"""Checks the include rule of src/, the tier rule of kernels/cpu, and file and function sizes.

Exit status 0 if all hold, 1 with one line per violation."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# layer -> layers it may include directly (its own is always allowed)
BASE = {"base"}
TENSOR = BASE | {"tensor"}
KERNELS = TENSOR | {"quant"}
OPS = KERNELS | {"kernels"}
ALLOWED = {
    "base": set(),
    "tensor": BASE,
    "format": TENSOR,
    "quant": TENSOR,
    "request": TENSOR,
    "kernels": KERNELS,
    "ops": OPS,
    "weights": OPS | {"ops", "format"},
    "models": OPS | {"ops", "format", "weights", "request"},
    "text": BASE | {"format"},
    "kv": OPS | {"ops", "request"},
    "sample": OPS | {"ops", "request", "text"},
    "spec": OPS | {"ops", "request", "models", "sample", "kv", "text"},
    "sched": OPS | {"kv", "request"},
}
ALLOWED["engine"] = set(ALLOWED)
ALLOWED["eval"] = BASE | {"engine", "request", "text", "kv"}
ALLOWED["server"] = BASE | {"engine", "request", "sample", "text"}
TIERS = ("avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16")
# Files and functions over the limits, each with its reason.
SIZE_ALLOWED = {}
MAX_FILE = 800

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def check():
    problems = []
    sources = sorted(p for d in ("src", "apps", "tests", "fuzz", "bench") for p in (ROOT / d).rglob("*")
                     if p.suffix in (".h", ".cpp", ".cu", ".cuh"))
    for path in sources:
        rel = path.relative_to(ROOT)
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        if len(lines) > MAX_FILE and str(rel) not in SIZE_ALLOWED:
            problems.append(f"{rel}: {len(lines)} lines, at most {MAX_FILE}")
        if not all(ord(c) < 128 for line in lines for c in line) and rel.parts[0] != "tests":
            problems.append(f"{rel}: not ASCII")
        if rel.parts[0] != "src":
            continue
        layer = rel.parts[1]
        tier_file = layer == "kernels" and rel.parts[2] == "cpu" and path.suffix == ".cpp" and any(
            path.stem.endswith("_" + t) for t in TIERS)
        for number, line in enumerate(lines, 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            quoted, target = match.group(1) == '"', match.group(2)
            if tier_file:
                if quoted and not target.startswith("kernels/cpu/"):
                    problems.append(f"{rel}:{number}: a tier file includes only kernels/cpu headers, not {target}")
                if not quoted and not target.endswith(".h"):
                    problems.append(f"{rel}:{number}: a tier file includes only C headers, not <{target}>")
            if not quoted:
                continue
            other = target.split("/")[0]
            if other != layer and other not in ALLOWED.get(layer, set()):
                problems.append(f"{rel}:{number}: {layer} may not include {target}")
            if not (ROOT / "src" / target).exists():
                problems.append(f"{rel}:{number}: no such header {target}")
    return problems


if __name__ == "__main__":
    found = check()
    for problem in found:
        print(problem)
    print(f"layers: {len(found)} problems")
    sys.exit(1 if found else 0)
