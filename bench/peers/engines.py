"""How run_peers.py and run_servers.py drive each engine: commands, and what to read from their output."""
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import NamedTuple

TIMEOUT_S = 3600


class Failed(Exception):
    """A command that did not do what was asked; the message names it."""


class Output(NamedTuple):
    stdout: str
    stderr: str
    seconds: float  # from start to exit
    peak_bytes: int  # resident
    other_cpus: float  # what all other processes used meanwhile, in CPUs


def busy_seconds():
    """CPU time of all processes since boot, idle and waiting excluded."""
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(x) for x in file.readline().split()[1:9]]
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def cpu_name():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        fields = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    fields = {k.strip(): v.strip() for k, v in fields.items()}
    return f"{fields.get('model name')} (family {fields.get('cpu family')}, model {fields.get('model')})"


def shown_arguments():
    """The command line without folders of this machine: a path becomes its last part."""
    return [os.path.basename(word.rstrip("/")) if "/" in word else word for word in sys.argv[1:]]


def execute(command):
    with tempfile.TemporaryDirectory() as cwd:
        start, busy = time.monotonic(), busy_seconds()
        with open(os.path.join(cwd, "out"), "w+b") as out, open(os.path.join(cwd, "err"), "w+b") as err:
            process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            watchdog = threading.Timer(TIMEOUT_S, process.kill)
            watchdog.start()
            # wait4 gives this child's peak; the rusage of all children would be the largest one's.
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - start
            others = max(0.0, busy_seconds() - busy - usage.ru_utime - usage.ru_stime) / seconds
            watchdog.cancel()
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            stdout, stderr = (f.read().decode("utf-8", "replace") for f in (out, err))
    if process.returncode != 0:
        last = [line for line in stderr.splitlines() if line.strip()][-1:]
        raise Failed(f"exit {process.returncode}: {' '.join(command)}: {' '.join(last)}")
    return Output(stdout, stderr, seconds, usage.ru_maxrss * 1024, others)


def bench_rows(output, depth):
    """({"pp": tokens/s, "tg": tokens/s} from llama-bench's JSON, CPUs used by other processes)."""
    speeds = {}
    for row in json.loads(output.stdout):
        if row.get("n_depth", 0) == depth and bool(row["n_prompt"]) != bool(row["n_gen"]):
            speeds["pp" if row["n_prompt"] else "tg"] = row["avg_ts"]
    return speeds, output.other_cpus


class Engine:
    """An engine's binaries live in one folder. Methods return figures or raise Failed."""

    name = ""
    programs = ()  # that must be there

    def __init__(self, folder):
        self.folder = folder

    def binary(self, name):
        path = os.path.join(self.folder, name)
        if not os.access(path, os.X_OK):
            raise Failed(f"{self.name}: no executable {path}")
        return path

    def lacking(self):
        return [p for p in self.programs if not os.access(os.path.join(self.folder, p), os.X_OK)]

    def perplexity_of(self, output):
        match = re.search(r"Final estimate: PPL.*= (\S+) \+/- (\S+)", output)
        if not match:
            raise Failed(f"{self.name}: no perplexity in the output of llama-perplexity")
        return float(match.group(1)), float(match.group(2))


class Mete(Engine):
    name = "mete"
    programs = ("mete",)

    def speed(self, model, prompt, generate, depth, threads):
        out = execute([self.binary("mete"), "bench", "-m", model, "-p", str(prompt), "-n", str(generate), "-d",
                       str(depth), "-r", "1", "-t", str(threads), "-o", "json"])
        return bench_rows(out, depth)

    def perplexity(self, model, text, chunks, threads, batched=True):
        out = execute([self.binary("mete"), "eval", "-m", model, "-f", text, "-c", "512", "--chunks", str(chunks),
                       "-t", str(threads), "--json"])
        row = json.loads(out.stdout)
        return row["ppl"], row["ppl_se"]

    def first_token(self, model, prompt_arguments, threads):
        out = execute([self.binary("mete"), "run", "-m", model, *prompt_arguments, "-n", "1", "--no-conversation",
                       "-c", "4096", "-b", "2048", "-ub", "512", "-t", str(threads), "--temp", "0"])
        return out.seconds, out.peak_bytes


class Llama(Engine):
    name = "llama.cpp"
    programs = ("llama-bench", "llama-perplexity", "llama-completion")

    def speed(self, model, prompt, generate, depth, threads):
        out = execute([self.binary("llama-bench"), "-m", model, "-p", str(prompt), "-n", str(generate), "-d",
                       str(depth), "-r", "1", "-t", str(threads), "-fa", "on", "-o", "json"])
        return bench_rows(out, depth)

    def perplexity(self, model, text, chunks, threads, batched=True):
        out = execute([self.binary("llama-perplexity"), "-m", model, "-f", text, "-c", "512", "-b", "512",
                                  "-ub", "512" if batched else "1", "--chunks", str(chunks), "-t", str(threads),
                                  "-fa", "on"])
        return self.perplexity_of(out.stdout + out.stderr)

    def first_token(self, model, prompt_arguments, threads):
        out = execute([self.binary("llama-completion"), "-m", model, *prompt_arguments, "-n", "1", "-no-cnv",
                       "-c", "4096", "-b", "2048", "-ub", "512", "-t", str(threads), "--temp", "0", "-fa", "on",
                       "--no-warmup", "-fit", "off"])
        return out.seconds, out.peak_bytes


class IkLlama(Engine):
    name = "ik_llama.cpp"
    programs = ("llama-bench", "llama-perplexity", "llama-sweep-bench")

    def speed(self, model, prompt, generate, depth, threads):
        if depth:
            return self.speed_at_depth(model, prompt, generate, depth, threads)
        out = execute([self.binary("llama-bench"), "-m", model, "-p", str(prompt), "-n", str(generate), "-r", "1",
                       "-t", str(threads), "-fa", "1", "-rtr", "1", "-o", "json"])
        return bench_rows(out, 0)

    def speed_at_depth(self, model, prompt, generate, depth, threads):
        """llama-bench has no depth here; llama-sweep-bench measures at multiples of the batch."""
        if depth % prompt:
            raise Failed(f"{self.name}: depth {depth} is no multiple of {prompt}")
        out = execute([self.binary("llama-sweep-bench"), "-m", model, "-c", str(depth + prompt), "-b",
                                  str(prompt), "-ub", str(prompt), "-n", str(generate), "-t", str(threads), "-fa",
                                  "on", "-rtr", "-wb", "--sweep-stride", str(depth // prompt), "--output-format",
                                  "jsonl"])
        for line in (out.stdout + out.stderr).splitlines():
            if line.startswith('{"n_kv_max"'):
                row = json.loads(line)
                if row["n_kv"] == depth:
                    return {"pp": row["speed_pp"], "tg": row["speed_tg"]}, out.other_cpus
        raise Failed(f"{self.name}: llama-sweep-bench printed no row at depth {depth}")

    def perplexity(self, model, text, chunks, threads, batched=True):
        out = execute([self.binary("llama-perplexity"), "-m", model, "-f", text, "-c", "512", "-b", "512",
                                  "-ub", "512" if batched else "1", "--chunks", str(chunks), "-t", str(threads),
                                  "-fa", "on", "-rtr"])
        return self.perplexity_of(out.stdout + out.stderr)

    first_token = None  # not compared


class Ceiling:
    """bench_ceiling: what the machine can do at most, with one thread count."""

    def __init__(self, path):
        self.path = path

    def measure(self, threads):
        return json.loads(execute([self.path, str(threads)]).stdout)["limits"][0]


def median(values):
    return statistics.median(values) if values else None


def quartiles(values):
    if len(values) < 2:
        return [values[0], values[0]] if values else [None, None]
    cut = statistics.quantiles(values, n=4, method="inclusive")
    return [cut[0], cut[2]]
