"""Results of run_peers.py and run_servers.py as Markdown."""
import engines

ORDER = ("mete", "llama.cpp", "ik_llama.cpp")


def is_wrong(answers, row):
    for answer in answers:
        if answer["model"] == row["model"] and answer["engine"] == row["engine"] and answer.get("wrong"):
            return row["test"].startswith("pp") or answer.get("wrong_token_by_token", True)
    return False


def cell(answers, row):
    if row is None or row["median"] is None:
        return "-"
    low, high = row["quartiles"]
    digits = 3 if row["test"] == "start_s" else 1
    text = f"{row['median']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    if "limit_share" in row:
        text += f" {100 * row['limit_share']:.0f} %"
    return text + (" **wrong**" if is_wrong(answers, row) else "")


def answer_line(answer):
    text = f"{answer['engine']}: perplexity {answer['ppl']:.3f} +- {answer['ppl_se']:.3f}"
    if answer.get("wrong"):
        text += f", wrong (reference {answer['reference_ppl']:.3f})"
    single = answer.get("ppl_one_window_token_by_token")
    if single:
        text += (f"; token by token {single:.3f} on the first window, reference "
                 f"{answer['reference_ppl_one_window']:.3f}")
    return text + "  "


def peers(data):
    """One table per model, the engines' perplexities, the limits. `data`: what run_peers.py writes."""
    rows, answers = data["rows"], data["answers"]
    found = {row["engine"] for row in rows}
    names = [n for n in ORDER if n in found]
    others = [n for n in names if n != "mete"] if "mete" in names else []
    lines = []
    for model in dict.fromkeys(r["model"] for r in rows):
        lines += [f"### {model}", "", "| test | threads | " + " | ".join(names)
                  + "".join(f" | mete / {n}" for n in others) + " |",
                  "|" + "---|" * (2 + len(names) + len(others))]
        for test, threads in dict.fromkeys((r["test"], r["threads"]) for r in rows if r["model"] == model):
            of = {r["engine"]: r for r in rows if (r["model"], r["test"], r["threads"]) == (model, test, threads)}
            ratios = [of.get(n, {}).get("mete_ratio") for n in others]
            lines.append(f"| {test} | {threads} | " + " | ".join(cell(answers, of.get(n)) for n in names)
                         + "".join(f" | {r:.2f}" if r else " | -" for r in ratios) + " |")
        lines.append("")
        lines += [answer_line(a) for a in answers if a["model"] == model]
        lines.append("")
    other = max((r.get("other_cpus", 0) for r in rows), default=0)
    lines.append(f"Other processes used at most {other:.2f} CPUs during a speed measurement.  ")
    for threads, limit in data["limits"].items():
        if limit["read_gb_s"]:
            lines.append(f"Limits with {threads} thread(s): read {limit['read_gb_s']:.1f} GB/s, int8 "
                         f"{limit['int8_tops']:.2f} TOPS, float32 {limit['f32_tflops']:.2f} TFLOPS (medians).  ")
    return "\n".join(lines)


def ms(figures, quantile):
    value = figures.get("between_tokens_s", {}).get(quantile)
    return None if value is None else 1000 * value


SERVER_ROWS = (
    ("tokens/s", lambda f: f.get("tokens_per_s"), 1),
    ("tokens/s, all clients busy", lambda f: f.get("busy_pieces_per_s"), 1),
    ("first token p50, s", lambda f: f.get("ttft_s", {}).get("p50"), 3),
    ("first token p99, s", lambda f: f.get("ttft_s", {}).get("p99"), 3),
    ("between tokens p50, ms", lambda f: ms(f, "p50"), 2),
    ("between tokens p99, ms", lambda f: ms(f, "p99"), 2),
    ("peak memory, MB", lambda f: f["peak_bytes"] / 1e6 if f.get("peak_bytes") else None, 1))


def servers(results):
    """`results`: {server: [figures of load.py, one per round]}."""
    names = [n for n in ORDER if n in results]
    others = [n for n in names if n != "mete"] if "mete" in names else []
    lines = ["| | " + " | ".join(names) + "".join(f" | mete / {n}" for n in others) + " |",
             "|" + "---|" * (1 + len(names) + len(others))]
    for title, get, digits in SERVER_ROWS:
        values = {n: [v for v in map(get, results[n]) if v is not None] for n in names}
        cells = []
        for name in names:
            low, high = engines.quartiles(values[name])
            cells.append(f"{engines.median(values[name]):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
                         if values[name] else "-")
        for name in others:
            ratios = [a / b for a, b in zip(values["mete"], values[name]) if b]
            cells.append(f"{engines.median(ratios):.2f}" if ratios else "-")
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
