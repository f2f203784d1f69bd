#!/usr/bin/env python3
"""Random load on `mete serve`: answers of all APIs, fresh grammars and schemas, shared prefixes, cancels, disconnects, slow
senders, oversize bodies, bad JSON, bytes that are no HTTP.

Passes if the server lives and ends with 0 at SIGTERM, no answer has an unexpected status or is cut short, five requests that
come back all the time get the same bits every time, what a grammar forces parses, no sequence and no open file is left at
the end, and memory is flat: the largest resident size of the last third is at most 5 % or 4 MiB above that of the middle
third, and the median of what is not mapped from files has grown from third to third by at most 2 MiB and 64 bytes for each answer.

    bench/serve_soak.py -m MODEL.gguf --minutes 2 [--clients 24] [--pause 0.2] [--seed 1] [--record FILE.json]"""
import argparse
import asyncio
import hashlib
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time

from serve_load import ROOT, free_port
from soak_requests import random_case

MIB = 1 << 20


class Soak:
    def __init__(self, args, port, pid):
        self.args, self.port, self.pid = args, port, pid
        self.statuses, self.kinds, self.unexpected, self.canaries, self.samples = {}, {}, [], {}, []
        self.parsed = self.checked_canaries = self.freezes = 0
        self.begin = time.monotonic()
        self.deadline = self.begin + 60 * args.minutes
        self.thawed = 0.0  # when this process last went on after being stopped

    def count(self, table, key):
        table[key] = table.get(key, 0) + 1

    def report(self, case, what, data=b""):
        if len(self.unexpected) < 20:
            self.unexpected.append({"kind": case.kind, "what": what, "request": repr(case.data[:600]),
                                    "answer": repr(data[:600])})

    async def client(self, i):
        rng = random.Random(self.args.seed * 1000 + i)
        while time.monotonic() < self.deadline:
            if self.args.pause:
                await asyncio.sleep(rng.expovariate(1 / self.args.pause))
            await self.one(rng, random_case(rng, self.args.tokens, self.args.max_body * MIB))

    async def one(self, rng, case):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError as e:
            self.deadline = 0  # it is dead
            self.report(case, f"no connection: {e}")
            return self.count(self.statuses, "refused")
        self.count(self.kinds, case.kind)
        begun = time.monotonic()
        manner = rng.random()  # 0.1 send a part and wait; 0.2 go away early; else read all
        patience = 0.001 * 10 ** (4 * rng.random()) if manner < 0.3 else 600
        data = case.data[:rng.randrange(len(case.data))] if manner < 0.1 else case.data
        answer = b""
        try:
            writer.write(data)
            answer = await asyncio.wait_for(reader.read(-1), patience)
            status = answer[9:12].decode(errors="replace") if answer.startswith(b"HTTP/1.1 ") else "none"
        except asyncio.TimeoutError:
            status = "left"
        except OSError:
            status = "reset"
        self.count(self.statuses, status)
        if manner >= 0.3 and begun > self.thawed:
            self.judge(case, status, answer)
        if rng.random() < 0.3:
            writer.transport.abort()
        else:
            writer.close()

    def judge(self, case, status, answer):
        if status == "500" or case.statuses and (not status.isdigit() or int(status) not in case.statuses):
            return self.report(case, status, answer)
        if status != "200" or not case.statuses:
            return None
        body = whole_body(answer)
        if body is None:
            return self.report(case, "cut short", answer[-600:])
        if case.check == "json":
            choice = json.loads(body)["choices"][0]
            if choice["finish_reason"] != "length":
                try:
                    json.loads(choice["message"]["content"])
                    self.parsed += 1
                except ValueError:
                    self.report(case, "the answer does not parse", body)
        elif case.check:
            answer = json.loads(body)
            receipt = answer["mete"]["receipt"]["choices"][0]
            bits = (answer["content"], receipt["logits_hash"], json.dumps(answer.get("completion_probabilities")))
            self.checked_canaries += 1
            if self.canaries.setdefault(case.check, bits) != bits:
                self.report(case, "other bits than the first time", body)
        return None

    async def watch_for_stops(self):
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.2)
            if time.monotonic() - before > 3:
                self.freezes += 1
                self.thawed = time.monotonic()

    def sample(self):
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        value = {k: int(v) for k, v in re.findall(r"^(\w+):\s+(\d+)", text, re.M)}
        ticks = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return {"s": round(time.monotonic() - self.begin, 1), "rss_mib": round(value["VmRSS"] / 1024, 2),
                "anon_mib": round(value["RssAnon"] / 1024, 2), "threads": value["Threads"],
                "files": len(os.listdir(f"/proc/{self.pid}/fd")), "answers": sum(self.statuses.values()),
                "cpu_s": (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")}

    async def run(self):
        await asyncio.sleep(0.5)  # the connections of the start are closed
        first = self.sample()
        watcher = asyncio.create_task(self.watch_for_stops())
        clients = [asyncio.create_task(self.client(i)) for i in range(self.args.clients)]
        while time.monotonic() < self.deadline and pathlib.Path(f"/proc/{self.pid}/fd").exists():
            await asyncio.sleep(self.args.minutes / 4 if self.args.minutes < 20 else 10)
            try:
                self.samples.append(self.sample())
            except (OSError, KeyError):  # it died
                break
            if self.args.record:
                pathlib.Path(self.args.record).write_text(json.dumps(self.result(first)))
        await asyncio.gather(*clients)
        watcher.cancel()

        left = None
        for _ in range(300):
            try:
                sequences = sum([await metric(self.port, "vllm:num_requests_" + k) for k in ("running", "waiting")])
                await asyncio.sleep(0.1)  # the server closes the connection
                left = {"sequences": sequences, "files": self.sample()["files"] - first["files"]}
            except (OSError, KeyError):
                break
            if left["sequences"] == 0 and left["files"] <= 0:
                break
        return {**self.result(first), "left": left}

    def result(self, first):
        third = max(1, len(self.samples) // 3)
        parts = {"first": self.samples[:third], "middle": self.samples[third:2 * third] or self.samples, "last": self.samples[-third:]}
        peak = {k: max(s["rss_mib"] for s in v) for k, v in parts.items()}
        middle, last = parts["middle"], parts["last"]
        growth = statistics.median(s["anon_mib"] for s in last) - statistics.median(s["anon_mib"] for s in middle)
        answers = statistics.median(s["answers"] for s in last) - statistics.median(s["answers"] for s in middle)
        end = self.samples[-1]
        return {"seconds": end["s"], "answers": end["answers"], "statuses": dict(sorted(self.statuses.items())),
                "requests": dict(sorted(self.kinds.items())), "unexpected": self.unexpected,
                "answers_parsed": self.parsed, "same_bits": self.checked_canaries, "times_stopped": self.freezes,
                "server_cpu_s": end["cpu_s"], "files_most": max(s["files"] for s in self.samples),
                "rss_mib": {"start": first["rss_mib"], **peak}, "anon_growth_mib": round(growth, 2),
                "flat": peak["last"] <= peak["middle"] + max(0.05 * peak["middle"], 4) and growth * MIB <= 2 * MIB + 64 * answers,
                "anon_growth_bytes_per_answer": round(growth * MIB / answers, 1) if answers else None,
                "samples": thinned(self.samples)}


def thinned(samples, most=120):
    step = -(-len(samples) // most)
    return samples[step - 1::step]


def whole_body(answer):
    """The body of the last response of a connection, None if it is not complete."""
    head, _, body = answer[answer.rindex(b"HTTP/1.1 "):].partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    if length:
        return body if len(body) == int(length.group(1)) else None
    return body if body.endswith(b"0\r\n\r\n") else None


async def metric(port, name):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = (await reader.read(-1)).decode()
    writer.close()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))


def start(args, port, log):
    command = [args.mete, "serve", "-m", args.model, "--port", str(port), "-np", "8", "-c", "512", "--chat-template", "chatml",
               "--max-queue", "16", "--timeout", "20", "--max-body", str(args.max_body), "--log-format", "json"]
    if args.threads:
        command += ["-t", str(args.threads)]
    process = subprocess.Popen(command, stderr=log)
    for _ in range(1200):
        try:
            asyncio.run(metric(port, "vllm:num_requests_running"))
            return process
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-m", "--model", required=True)
    p.add_argument("--mete", default=str(ROOT / "build/release/mete"))
    p.add_argument("--minutes", type=float, default=2)
    p.add_argument("--clients", type=int, default=24)
    p.add_argument("--pause", type=float, default=0, help="mean seconds that a client waits between requests")
    p.add_argument("--tokens", type=lambda s: [int(x) for x in s.split(",")], default=[1, 8, 32, 64],
                   help="lengths of answers to choose from")
    p.add_argument("--max-body", type=int, default=1, help="the server's longest body, MiB")
    p.add_argument("-t", "--threads", type=int)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--log", help="file for the server's log")
    p.add_argument("--record", help="JSON file for the figures, written again at every sample")
    p.add_argument("--commit", default="", help="what the binary was built from, for the record")
    args = p.parse_args()
    port = free_port()
    with open(args.log, "w+b") if args.log else tempfile.TemporaryFile() as log:
        process = start(args, port, log)
        result = asyncio.run(Soak(args, port, process.pid).run())
        alive = process.poll() is None
        process.terminate()
        try:
            code = process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            code = None
        log.seek(0)
        errors = [line.decode(errors="replace") for line in log if not line.startswith(b"{") or b'"level":"error"' in line]
    with open(args.mete, "rb") as f:
        binary = hashlib.sha256(f.read()).hexdigest()[:16]
    passed = bool(alive and code == 0 and result["flat"] and not result["unexpected"] and not errors and
                  result["left"] and result["left"]["sequences"] == 0 and result["left"]["files"] <= 0)
    result = {"passed": passed, "model": pathlib.Path(args.model).name, "commit": args.commit, "binary_sha256": binary,
              "clients": args.clients, "pause_s": args.pause, "seed": args.seed, "alive": alive, "exit_code": code,
              "errors_logged": errors[:50], **result}
    if args.record:
        pathlib.Path(args.record).write_text(json.dumps(result, indent=1) + "\n")
    del result["samples"]
    print(json.dumps(result, indent=1))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
