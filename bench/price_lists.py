#!/usr/bin/env python3
"""Runs one sweep of `mete eval` over several models and writes bench/results/<date>-<name>.json, which
tools/make_results.py turns into tables.

    bench/price_lists.py --sweep bench/sweeps/kv-codecs.toml --name kv-codecs --data DATA -m MODEL.gguf [MODEL.gguf ...]
"""
import argparse
import datetime
import json
import os
import pathlib
import platform
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--models", nargs="+", required=True)
    parser.add_argument("--sweep", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--data", default=os.environ.get("METE_DATA_DIR"), help="default: METE_DATA_DIR")
    parser.add_argument("--mete", default=str(ROOT / "build/release/mete"))
    parser.add_argument("--chunks", type=int, help="instead of the sweep's")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if not options.data:
        parser.error("--data or METE_DATA_DIR: the folder of the texts")
    extra = []
    for name in ("chunks", "threads"):
        if getattr(options, name) is not None:
            extra += [f"--{name}", str(getattr(options, name))]
    lists, failures, load = [], [], []
    for model in options.models:
        command = [options.mete, "eval", "--sweep", options.sweep, "-m", model, "--data", options.data, "--json", *extra]
        print(" ".join(command), file=sys.stderr)
        load.append(os.getloadavg()[0])
        done = subprocess.run(command, stdout=subprocess.PIPE)
        name = pathlib.Path(model).name
        if done.returncode != 0:
            failures.append(f"{name}: exit code {done.returncode}")
            continue
        settings = json.loads(done.stdout)["settings"]
        for setting in settings:
            setting["model"] = name
        lists.append({"model": name, "settings": settings})
    commit = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    today = datetime.date.today().isoformat()
    sweep = pathlib.Path(options.sweep)
    shown = [f"bench/price_lists.py --sweep {sweep}", f"--name {options.name} --data DATA", *extra, "-m MODELS"]
    out = {"kind": "price_list", "date": today, "cpu": cpu_name(), "kernel": platform.release(),
           "commit": commit.stdout.strip(), "command": " ".join(shown), "sweep": sweep.read_text(),
           "load_average": load, "lists": lists, "failures": failures}
    path = ROOT / "bench" / "results" / f"{today}-{options.name}.json"
    path.write_text(json.dumps(out, indent=1) + "\n")
    print(path)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
