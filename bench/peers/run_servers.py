#!/usr/bin/env python3
"""`mete serve` beside llama-server under the same load: same file, slots, threads; one server at a time, in turn.

    bench/peers/run_servers.py -m MODEL.gguf --text wikitext2-valid.txt --name NAME \\
        --mete build/release --llama LLAMA_BIN_DIR --slots 4 --clients 4 --rounds 3

In every round each server is started, waits for /health, answers one warm-up request, then takes the load of load.py,
and is ended. A server whose folder is not given, or has no binary, is left out and said to be missing. Rows go to
bench/results/<date>-<name>.json, the table to stdout. Exit status 1 if a server or a request failed.
"""
import argparse
import datetime
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

import engines
import load
import tables

HERE = os.path.dirname(os.path.abspath(__file__))


class Server:
    """One server program; a context manager that starts it and ends it."""

    def __init__(self, name, command, port):
        self.name, self.command, self.port = name, command, port
        self.url = f"http://127.0.0.1:{port}"
        self.process = self.log = None

    def __enter__(self):
        self.log = tempfile.NamedTemporaryFile("w+b", suffix=".log")
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def last_words(self):
        self.log.seek(0)
        lines = [line for line in self.log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return " | ".join(lines[-3:])

    def wait_until_ready(self, seconds=300):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise engines.Failed(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=5) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.2)
        raise engines.Failed(f"{self.name} was not ready after {seconds} s: {self.last_words()}")

    def peak_bytes(self):
        """Peak resident memory of the process."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        return None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def commands(arguments, port):
    """({name: command}, [what is missing]) for the servers that are there."""
    each = str(arguments.threads)
    # llama-server divides -c among its slots.
    total = str(arguments.context * arguments.slots)
    slots, found, missing = str(arguments.slots), {}, []
    for name, folder, program, rest in (
            ("mete", arguments.mete, "mete",
             ["serve", "-m", arguments.model, "-c", str(arguments.context), "-np", slots, "-t", each]),
            ("llama.cpp", arguments.llama, "llama-server",
             ["-m", arguments.model, "-c", total, "-np", slots, "-t", each, "-tb", each, "-fa", "on", "-no-kvu",
              "--no-webui", "-fit", "off"])):
        if not folder:
            missing.append(f"{name}: no folder given")
            continue
        path = os.path.join(os.path.abspath(folder), program)
        if not os.access(path, os.X_OK):
            missing.append(f"{name}: no executable {path}")
            continue
        found[name] = [path, *rest, "--host", "127.0.0.1", "--port", str(port)]
    return found, missing


def measure(arguments, name, command, port):
    load_arguments = load.parse_arguments([
        "--url", f"http://127.0.0.1:{port}", "--text", arguments.text, "--clients", str(arguments.clients), "--requests",
        str(arguments.requests), "--words", str(arguments.words), "--max-tokens", str(arguments.max_tokens)])
    warm_up = load.parse_arguments(["--url", load_arguments.url, "--text", arguments.text, "--clients", "1",
                                    "--requests", "1", "--words", "16", "--max-tokens", "8"])
    with Server(name, command, port) as server:
        server.wait_until_ready()
        load.measure(warm_up)
        busy = engines.busy_seconds()
        figures = load.measure(load_arguments)
        figures["busy_cpus"] = (engines.busy_seconds() - busy) / figures.get("wall_s", 1)
        figures["peak_bytes"] = server.peak_bytes()
    return figures


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--text", required=True)
    parser.add_argument("--name", required=True, help="names the results file")
    parser.add_argument("--mete", default=os.environ.get("METE_BIN"), metavar="DIR")
    parser.add_argument("--llama", default=os.environ.get("METE_LLAMA_BIN"), metavar="DIR")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--context", type=int, default=2048, help="tokens of a slot")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--words", type=int, default=96)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", default=os.path.join(HERE, "..", "results"), metavar="DIR")
    return parser.parse_args()


def main():
    # Ended from outside, it still ends the server that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    arguments = parse_arguments()
    arguments.model = os.path.abspath(arguments.model)
    port = free_port()
    found, missing = commands(arguments, port)
    for line in missing:
        print(f"missing: {line}", file=sys.stderr)
    if not found:
        raise SystemExit("run_servers.py: no server to measure")
    results, failures = {name: [] for name in found}, []
    for index in range(arguments.rounds):
        names = list(found)
        shift = index % len(names)
        for name in names[shift:] + names[:shift]:
            try:
                figures = measure(arguments, name, found[name], port)
            except (engines.Failed, OSError) as error:
                failures.append(f"{name}: {error}")
                print(f"FAILED {failures[-1]}", file=sys.stderr)
                continue
            failures += [f"{name}: {f}" for f in figures["failures"]]
            results[name].append(figures)
            print(f"round {index + 1}/{arguments.rounds} {name}: {figures.get('tokens_per_s', 0):.1f} tokens/s, "
                  f"load {os.getloadavg()[0]:.2f}", file=sys.stderr, flush=True)
    started = datetime.datetime.now()
    path = os.path.join(arguments.results, f"{started:%Y-%m-%d}-{arguments.name}.json")
    setting = {k: getattr(arguments, k) for k in ("slots", "threads", "context", "clients", "requests", "words",
                                                  "max_tokens", "rounds")}
    with open(path, "w", encoding="utf-8") as out:
        json.dump(dict(kind="servers", date=f"{started:%Y-%m-%d %H:%M}", cpu=engines.cpu_name(),
                       kernel=platform.release(), command=" ".join(["bench/peers/run_servers.py", *engines.shown_arguments()]), model=os.path.basename(
                           arguments.model), setting=setting, missing=missing, results=results, failures=failures),
                  out, indent=1)
    print(tables.servers(results))
    for line in [f"missing: {m}" for m in missing] + [f"FAILED {f}" for f in failures]:
        print(line)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
