#!/usr/bin/env python3
"""Compares mete with llama.cpp and ik_llama.cpp on the same files, interleaved, beside the machine's measured limits.

    bench/peers/run_peers.py -m MODEL.gguf [-m ...] --text wikitext2-valid.txt --name NAME \\
        --mete build/release --llama LLAMA_BIN_DIR --ik IK_BIN_DIR --ceiling build/release/bench/bench_ceiling

Engines whose folder is not given, or lacks a program, are left out and said to be missing. Folders may also come from METE_BIN, METE_LLAMA_BIN, METE_IK_BIN,
METE_CEILING. Rows go to bench/results/<date>-<name>.json, a Markdown table to stdout, progress to stderr.
What the columns mean: bench/README.md. Exit status 1 if a command failed.
"""
import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time

import engines
import tables
from model_cost import read_model_cost

HERE = os.path.dirname(os.path.abspath(__file__))
PROMPT, GENERATE, CHUNKS = 512, 64, 4


def say(text):
    print(f"[{datetime.datetime.now():%H:%M:%S} load {os.getloadavg()[0]:.2f}] {text}", file=sys.stderr, flush=True)


class Run:
    """Collects rows (one per model, engine, test, thread count) and failures."""

    def __init__(self, arguments, names):
        self.arguments, self.names = arguments, names
        self.rows, self.ceilings, self.answers, self.costs, self.failures = [], [], [], {}, []

    def attempt(self, what, call):
        try:
            return call()
        except (engines.Failed, KeyError, ValueError, OSError) as error:
            message = f"{what}: {error}"
            self.failures.append(message)
            say(f"FAILED {message}")
            return None

    def row(self, model, engine, test, threads):
        key = dict(model=os.path.basename(model), engine=engine, test=test, threads=threads)
        for row in self.rows:
            if all(row[k] == v for k, v in key.items()):
                return row
        self.rows.append(dict(key, values=[]))
        return self.rows[-1]


def reference_perplexity(model, text):
    """llama.cpp's answer from the golden data for this file and text, or None."""
    folder = os.path.join(HERE, "..", "..", "tests", "golden", "llama")
    for name in sorted(os.listdir(folder)):
        if name.endswith(".json"):
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                golden = json.load(file)
            same_file = (golden["model"]["file"], golden["model"]["bytes"]) == (
                os.path.basename(model), os.path.getsize(model))
            if same_file and golden["perplexity"]["text"] == os.path.basename(text):
                return golden["perplexity"]["ppl"], golden["perplexity"]["ppl_se"]
    return None


def check_token_by_token(run, model, engine, contestants, row):
    """A peer wrong in batches may be right in decoding: its perplexity of one window, a token at a time."""
    text, threads = run.arguments.text, max(run.arguments.threads)
    llama = next((e for e in contestants if e.name == "llama.cpp"), None)
    if llama is None or llama is engine:
        return
    reference = run.attempt("llama.cpp perplexity of one window", lambda: llama.perplexity(model, text, 1, threads))
    found = run.attempt(f"{engine.name} perplexity token by token",
                        lambda: engine.perplexity(model, text, 1, threads, batched=False))
    if reference and found:
        row["ppl_one_window_token_by_token"], row["reference_ppl_one_window"] = found[0], reference[0]
        row["wrong_token_by_token"] = abs(found[0] - reference[0]) > reference[1]


def check_answers(run, model, contestants):
    """Perplexity of each engine; one that is off by a standard error of the reference answers wrongly."""
    text, threads = run.arguments.text, max(run.arguments.threads)
    reference = reference_perplexity(model, text)
    for engine in contestants:
        found = run.attempt(f"{engine.name} perplexity", lambda: engine.perplexity(model, text, CHUNKS, threads))
        if found is None:
            continue
        if reference is None and engine.name == "llama.cpp":
            reference = found
        row = dict(model=os.path.basename(model), engine=engine.name, ppl=found[0], ppl_se=found[1])
        if reference is not None:
            row["reference_ppl"], row["reference_se"] = reference
            row["standard_errors_off"] = abs(found[0] - reference[0]) / reference[1]
            row["wrong"] = row["standard_errors_off"] > 1
            if row["wrong"] and engine.name != "mete":
                check_token_by_token(run, model, engine, contestants, row)
        run.answers.append(row)
        say(f"{engine.name}: perplexity {found[0]:.4f} +- {found[1]:.4f}{' WRONG' if row.get('wrong') else ''}")


def quiet_speed(arguments, engine, model, depth, threads):
    """Speeds, and the CPUs that other processes used; the quietest of several tries if --quiet asks for less."""
    best = None
    for _ in range(arguments.tries):
        found = engine.speed(model, PROMPT, GENERATE, depth, threads)
        if best is None or found[1] < best[1]:
            best = found
        if best[1] <= arguments.quiet:
            break
        time.sleep(2)
    return best


def measure_speed(run, model, contestants, ceiling, depth, rounds):
    """Rounds of all engines in turn, the first one changing; the limits are measured in each round."""
    suffix = f"@d{depth}" if depth else ""
    for index in range(rounds):
        for threads in run.arguments.threads:
            if ceiling:
                limits = run.attempt("ceiling", lambda: ceiling.measure(threads))
                if limits:
                    run.ceilings.append(limits)
            start = index % len(contestants)
            for engine in contestants[start:] + contestants[:start]:
                speeds, other = run.attempt(
                    f"{engine.name} {os.path.basename(model)} t{threads}{suffix}",
                    lambda: quiet_speed(run.arguments, engine, model, depth, threads)) or ({}, 0)
                for kind, speed in speeds.items():
                    row = run.row(model, engine.name, f"{kind}{PROMPT if kind == 'pp' else GENERATE}{suffix}", threads)
                    row["values"].append(speed)
                    row["other_cpus"] = max(row.get("other_cpus", 0), other)
                say(f"round {index + 1}/{rounds} t{threads} {engine.name}{suffix}: "
                    + ", ".join(f"{k} {v:.1f}" for k, v in speeds.items()) + f" (others used {other:.2f} CPUs)")


def measure_start_and_memory(run, model, contestants, rounds):
    """Process start to first token and exit (page cache warm), and peak resident bytes beyond the file."""
    contestants = [e for e in contestants if e.first_token]
    threads = max(run.arguments.threads)
    with tempfile.NamedTemporaryFile("wb", suffix=".txt") as prompt, open(run.arguments.text, "rb") as text:
        prompt.write(text.read(8000))  # about 2,000 tokens
        prompt.flush()
        for index in range(rounds + 1):
            for engine in contestants:
                found = run.attempt(f"{engine.name} first token",
                                    lambda: engine.first_token(model, ["-p", "Hello"], threads))
                if found and index:  # the first round warms the page cache
                    run.row(model, engine.name, "start_s", threads)["values"].append(found[0])
        for engine in contestants:
            found = run.attempt(f"{engine.name} memory",
                                lambda: engine.first_token(model, ["-f", prompt.name], threads))
            if found:
                beyond = found[1] - os.path.getsize(model)
                run.row(model, engine.name, "beyond_file_mb", threads)["values"].append(beyond / 1e6)


def finish(run):
    """Medians, quartiles, ratios to mete and shares of the limits."""
    limits = {}
    for threads in run.arguments.threads:
        rows = [c for c in run.ceilings if c["threads"] == threads]
        limits[threads] = {k: engines.median([c[k] for c in rows]) for k in ("read_gb_s", "int8_tops", "f32_tflops")}
    for row in run.rows:
        row["median"], row["quartiles"] = engines.median(row["values"]), engines.quartiles(row["values"])
        cost, limit = run.costs[row["model"]], limits[row["threads"]]
        if row["median"] and row["test"] == f"tg{GENERATE}" and limit["read_gb_s"]:
            row["limit_share"] = row["median"] * cost["decode_bytes"] / (limit["read_gb_s"] * 1e9)
        if row["median"] and row["test"] == f"pp{PROMPT}" and limit["int8_tops"]:
            row["limit_share"] = row["median"] * 2 * cost["prefill_parameters"] / (limit["int8_tops"] * 1e12)
        mete = next((r for r in run.rows if r["engine"] == "mete" and all(
            r[k] == row[k] for k in ("model", "test", "threads"))), None)
        if mete and mete is not row and len(mete["values"]) == len(row["values"]) > 0:
            row["mete_ratio"] = engines.median([a / b for a, b in zip(mete["values"], row["values"])])
    return {str(k): v for k, v in limits.items()}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", action="append", required=True)
    parser.add_argument("--text", required=True, help="text for perplexity and for the memory test's prompt")
    parser.add_argument("--name", required=True, help="names the results file")
    parser.add_argument("--mete", default=os.environ.get("METE_BIN"), metavar="DIR")
    parser.add_argument("--llama", default=os.environ.get("METE_LLAMA_BIN"), metavar="DIR")
    parser.add_argument("--ik", default=os.environ.get("METE_IK_BIN"), metavar="DIR")
    parser.add_argument("--ceiling", default=os.environ.get("METE_CEILING"), metavar="FILE")
    parser.add_argument("--threads", default=[1, 2], type=lambda s: [int(x) for x in s.split(",")], metavar="N,N")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--depth", type=int, default=8192)
    parser.add_argument("--depth-rounds", type=int, default=2)
    parser.add_argument("--start-rounds", type=int, default=5, help="0 leaves out start time and memory")
    parser.add_argument("--quiet", type=float, default=0.2, metavar="CPUS",
                        help="repeat a speed measurement while other processes used more than this")
    parser.add_argument("--tries", type=int, default=3, help="measurements for --quiet, the quietest counts")
    parser.add_argument("--no-perplexity", action="store_true", help="trust the engines' answers")
    parser.add_argument("--results", default=os.path.join(HERE, "..", "results"), metavar="DIR")
    return parser.parse_args()


def find_contestants(arguments):
    """(engines that are there, what is missing)."""
    contestants, missing = [], []
    for make, folder, option in ((engines.Mete, arguments.mete, "--mete"), (engines.Llama, arguments.llama, "--llama"),
                                 (engines.IkLlama, arguments.ik, "--ik")):
        if not folder:
            missing.append(f"{make.name}: no folder given ({option})")
            continue
        engine = make(os.path.abspath(folder))
        lacking = engine.lacking()
        if lacking:
            missing.append(f"{make.name}: {engine.folder} has no {', '.join(lacking)}")
        else:
            contestants.append(engine)
    if not arguments.ceiling:
        missing.append("limits: no bench_ceiling given (--ceiling); shares of the limit are left out")
    return contestants, missing


def main():
    arguments = parse_arguments()
    arguments.text = os.path.abspath(arguments.text)
    contestants, missing = find_contestants(arguments)
    for line in missing:
        say(f"missing: {line}")
    if not contestants:
        raise SystemExit("run_peers.py: no engine to measure (--mete, --llama, --ik)")
    ceiling = engines.Ceiling(os.path.abspath(arguments.ceiling)) if arguments.ceiling else None
    run = Run(arguments, [e.name for e in contestants])
    started, load = datetime.datetime.now(), os.getloadavg()
    path = os.path.join(arguments.results, f"{started:%Y-%m-%d}-{arguments.name}.json")
    os.makedirs(arguments.results, exist_ok=True)
    for model in (os.path.abspath(m) for m in arguments.model):
        say(os.path.basename(model))
        cost = run.costs[os.path.basename(model)] = read_model_cost(model)
        if not arguments.no_perplexity:
            check_answers(run, model, contestants)
        measure_speed(run, model, contestants, ceiling, 0, arguments.rounds)
        # Depth and prompt together stay within the model's context.
        depth = min(arguments.depth, (cost["context"] - PROMPT) // PROMPT * PROMPT)
        if arguments.depth_rounds and depth > 0:
            measure_speed(run, model, contestants, ceiling, depth, arguments.depth_rounds)
        if arguments.start_rounds:
            measure_start_and_memory(run, model, contestants, arguments.start_rounds)
        limits = finish(run)
        data = dict(kind="peers", date=f"{started:%Y-%m-%d %H:%M}", cpu=engines.cpu_name(), kernel=platform.release(),
                    command=" ".join(["bench/peers/run_peers.py", *engines.shown_arguments()]), missing=missing,
                    load_before=load, load_after=os.getloadavg(), limits=limits, models=run.costs, answers=run.answers,
                    rows=run.rows, ceilings=run.ceilings, failures=run.failures)
        with open(path, "w", encoding="utf-8") as out:
            json.dump(data, out, indent=1)
    print(tables.peers(data))
    for line in missing:
        print(f"missing: {line}  ")
    for failure in run.failures:
        print(f"FAILED {failure}")
    say(f"rows in {path}")
    return 1 if run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
