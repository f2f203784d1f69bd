#!/usr/bin/env python3
"""Writes docs/results.md from the JSON files of bench/results: the newest of each name, with the command that made it.

    tools/make_results.py           writes the page
    tools/make_results.py --check   exit status 1 if the page is not what the files say
"""
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "results.md"
sys.path.insert(0, str(ROOT / "bench" / "peers"))

import tables  # noqa: E402

HEAD = """# Results

Made by `tools/make_results.py` from the JSON files in `bench/results`; do not edit. What the columns mean and how to
measure again: `bench/README.md` and `docs/measuring.md`. A cell is a median with its quartiles in brackets; `%` is the share
of what the machine could do at most, measured in the same run.
"""


def newest(folder):
    """{name: path} of <date>-<name>.json, the latest date of each name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        match = re.fullmatch(r"(\d{4}-\d{2}-\d{2})-(.+)", path.stem)
        if match:
            found[match.group(2)] = path
    return found


def number(row, key, digits=2, scale=1.0):
    value = row.get(key)
    return f"{value * scale:.{digits}f}" if isinstance(value, (int, float)) else "-"


def bench_rows(rows):
    """Rows of `mete bench -o json`."""
    lines = ["| model | threads | test | t/s | of limit | first token s | MB/token | J/token | peak RSS MiB | ledger |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for row in rows:
        model = row["model_filename"].rsplit("/", 1)[-1]
        if "load_s" in row:
            lines.append(f"| {model} | - | {row['test']} | {number(row, 'load_s', 3)} s | "
                         f"{number(row, 'share_of_limit', 0, 100)} % | - | - | - | "
                         f"{number(row, 'peak_rss_bytes', 1, 1 / 1048576)} | - |")
            continue
        lines.append(f"| {model} | {row['n_threads']} | {row['test']} | {number(row, 'median_ts')} "
                     f"[{number(row, 'q1_ts')}, {number(row, 'q3_ts')}] | {number(row, 'share_of_limit', 0, 100)} % of "
                     f"{row['limit']} | {number(row, 'ttft_s', 3)} | {number(row, 'read_bytes_per_token', 1, 1e-6)} | "
                     f"{number(row, 'joules_per_token', 3)} | {number(row, 'peak_rss_bytes', 1, 1 / 1048576)} | "
                     f"{number(row, 'ledger_share', 2, 100)} % |")
    first = rows[0]
    lines += ["", f"{first['cpu_info']}, {first['kernel']}, {first['compiler']}, commit {first['build_commit']}."]
    return "\n".join(lines)


def price_list(data):
    """Rows of `mete eval --sweep` for every model, ordered by bytes."""
    parts = []
    for entry in data["lists"]:
        settings = entry["settings"]
        first = settings[0]
        judged = [t["task"] for t in first["tasks"] if "score" in t]
        head = ["setting", "MiB", "perplexity", "KL mean +- se", "KL 99 %", "KL max", "same top", *judged, "t/s",
                "dominated by"]
        lines = [f"**{entry['model']}**, {first['tokens']} positions in {first['windows']} windows of {first['n_ctx']}; "
                 f"reference {first['reference']}, perplexity {first['reference_ppl']:.4f}.", "",
                 "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for s in settings:
            scores = [f"{t['right']}/{t['samples']}" for t in s["tasks"] if "score" in t]
            cells = [s["name"], f"{s['bytes'] / 1048576:.2f}", f"{s['ppl']:.4f}",
                     f"{s['kl_mean']:.3g} +- {s['kl_se']:.2g}", f"{s['kl_p99']:.3g}", f"{s['kl_max']:.3g}",
                     f"{100 * s['same_top1']:.2f} %", *scores,
                     f"{s['decode_tokens_per_s']:.1f} +- {50 * s['decode_spread']:.0f} %", s["dominated_by"] or "-"]
            lines.append("| " + " | ".join(cells) + " |")
        parts.append("\n".join(lines))
    load = ", ".join(f"{x:.1f}" for x in data["load_average"])
    parts.append(f"Load average at the start of each: {load}. Where other work ran, t/s are no results.")
    return "\n\n".join(parts)


def section(name, path):
    """The part of the page for one file; None if the file is of another kind."""
    data = json.loads(path.read_text())
    title = f"## {name} ({path.name[:10]})"
    if isinstance(data, list) and data and all("model_hash" in row for row in data):
        return f"{title}\n\n{bench_rows(data)}\n"
    if not isinstance(data, dict):
        return None
    if "rows" in data and "ceilings" in data:
        body = tables.peers(data)
    elif data.get("kind") == "servers":
        setting = ", ".join(f"{k} {v}" for k, v in data["setting"].items())
        body = f"{data['model']}; {setting}.\n\n{tables.servers(data['results'])}"
    elif data.get("kind") == "price_list":
        body = price_list(data)
    else:
        return None
    command = data.get("command")
    how = f"    {command}" if command else "The command was not recorded; `bench/README.md` shows the form."
    lines = [title, "", f"{data['cpu']}, Linux {data['kernel']}, {data['date']}.", "", how, "", body]
    lines += [f"Missing: {m}  " for m in data.get("missing", [])] + [f"Failed: {f}  " for f in data["failures"]]
    return "\n".join(lines) + "\n"


def page():
    parts, others = [HEAD], []
    for name, path in sorted(newest(RESULTS).items()):
        text = section(name, path)
        if text is None:
            others.append(f"- `{path.relative_to(ROOT)}`")
        else:
            parts.append(text)
    if others:
        parts.append("## Files of other kinds\n\n" + "\n".join(others) + "\n")
    return "\n".join(parts)


def main():
    text = page()
    if "--check" in sys.argv[1:]:
        if not PAGE.exists() or PAGE.read_text() != text:
            print("docs/results.md is not what bench/results says: run tools/make_results.py")
            return 1
        return 0
    PAGE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
