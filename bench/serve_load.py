#!/usr/bin/env python3
"""Concurrent streams against `mete serve` and, on the same file with the same slots, llama-server.

    bench/serve_load.py -m MODEL.gguf [--streams 64] [--tokens 128] [--peer PATH/llama-server] [--idle 1000]

Each stream asks /completion for a fixed number of tokens (end tokens are never sampled) with its own prompt.
Prints a JSON object per server: total tokens/s over the time from the first request to the last token, tokens/s of
each stream, and percentiles of the time to the first token and between tokens. `--idle N` keeps N further connections open
that have answered one request, as kept-alive clients do; `--streams 1000` queues what does not fit the slots. Exit status 1 if
a stream failed, a file stayed open, or with `--repeat` the last round left more than 3 % more memory in use than the first."""
import argparse
import asyncio
import json
import os
import pathlib
import resource
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def prompt_of(i, words):
    return " ".join(f"{(i * 7919 + k * 104729) % 1000}" for k in range(words)) + " and then"


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(p / 100 * len(values)))] if values else None


async def read_head(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    return int(head.split()[1]), head


async def stream(port, body, times):
    """One streamed completion; times gets the moment of every event with content."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = json.dumps(body).encode()
    writer.write(b"POST /completion HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                 b"Content-Length: %d\r\n\r\n" % len(data) + data)
    status, head = await read_head(reader)
    if status != 200:
        writer.close()
        return {"status": status}
    tokens = 0
    while True:
        line = await reader.readline()
        if not line:
            break
        if not line.startswith(b"data: "):
            continue
        event = json.loads(line[6:])
        if event.get("stop"):
            tokens = event["tokens_predicted"]
            break
        times.append((time.perf_counter(), len(event.get("tokens", [1]))))
    writer.close()
    return {"status": 200, "tokens": tokens}


async def idle_connections(port, count):
    """Connections that have had one answer and stay open."""
    out = []
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        status, head = await read_head(reader)
        length = int(head.split("content-length:")[1].split()[0])
        await reader.readexactly(length)
        out.append((reader, writer))
    return out


async def measure(port, args):
    idle = await idle_connections(port, args.idle)
    all_times = [[] for _ in range(args.streams)]
    bodies = [{"prompt": prompt_of(i, args.prompt_words), "n_predict": args.tokens, "ignore_eos": True, "stream": True,
               "temperature": 0, "cache_prompt": False} for i in range(args.streams)]
    begin = time.perf_counter()
    done = await asyncio.gather(*(stream(port, b, t) for b, t in zip(bodies, all_times)), return_exceptions=True)
    seconds = time.perf_counter() - begin
    for _, writer in idle:
        writer.close()
    good = [d for d in done if isinstance(d, dict) and d["status"] == 200]
    gaps = [b[0] - a[0] for times in all_times for a, b in zip(times, times[1:])]
    first = [times[0][0] - begin for times in all_times if times]
    tokens = sum(d["tokens"] for d in good)
    return {"streams": args.streams, "idle_connections": args.idle, "errors": len(done) - len(good),
            "tokens": tokens, "seconds": round(seconds, 3), "tokens_per_s": round(tokens / seconds, 1),
            "first_token_s": {"p50": percentile(first, 50), "p99": percentile(first, 99)},
            "between_tokens_ms": {k: round(1000 * percentile(gaps, p), 2) if gaps else None
                                  for k, p in (("p50", 50), ("p90", 90), ("p99", 99), ("max", 100))},
            "gap_mean_ms": round(1000 * statistics.mean(gaps), 2) if gaps else None}


def rss_mib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0


def held_by(pid):
    """What the server holds when no request runs."""
    return {"rss_mib": round(rss_mib(pid), 1), "files": len(os.listdir(f"/proc/{pid}/fd"))}


def run_server(command, port, args):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=2) as s:
                    s.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    if b" 200 " in s.recv(64):
                        break
            except OSError:
                pass
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[0]} did not start")
            time.sleep(0.1)
        time.sleep(1)
        results, held = [], [held_by(process.pid)]
        for _ in range(args.repeat):
            results.append(asyncio.run(measure(port, args)))
            time.sleep(1)
            held.append(held_by(process.pid))
        best = max(results, key=lambda r: r["tokens_per_s"])
        best["all_tokens_per_s"] = [r["tokens_per_s"] for r in results]
        best["errors"] = sum(r["errors"] for r in results)
        best["rss_mib"] = held[-1]["rss_mib"]
        best["held_before_and_after_each"] = held
        best["leak"] = held[-1]["files"] > held[0]["files"] or held[-1]["rss_mib"] > 1.03 * held[1]["rss_mib"]
        return best
    finally:
        process.kill()
        process.wait()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-m", "--model", required=True)
    p.add_argument("--mete", default=str(ROOT / "build/release/mete"))
    p.add_argument("--peer", help="llama-server to compare with")
    p.add_argument("--streams", type=int, default=64)
    p.add_argument("--slots", type=int, help="default: as --streams, at most 64")
    p.add_argument("--tokens", type=int, default=128)
    p.add_argument("--prompt-words", type=int, default=16)
    p.add_argument("--context", type=int, default=512, help="tokens of one sequence")
    p.add_argument("--idle", type=int, default=0)
    p.add_argument("--repeat", type=int, default=1)
    p.add_argument("-t", "--threads", type=int)
    args = p.parse_args()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    slots = args.slots or min(args.streams, 64)
    threads = ["-t", str(args.threads)] if args.threads else []
    port = free_port()
    command = [args.mete, "serve", "-m", args.model, "--port", str(port), "-np", str(slots), "-c", str(args.context),
               *threads]
    report = {"model": pathlib.Path(args.model).name, "slots": slots, "tokens_per_stream": args.tokens,
              "mete": run_server(command, port, args)}
    if args.peer:
        port = free_port()
        command = [args.peer, "-m", args.model, "--port", str(port), "-np", str(slots), "-c", str(args.context * slots),
                   "--no-webui", *threads]
        report["llama_server"] = run_server(command, port, args)
        ours, theirs = report["mete"], report["llama_server"]
        report["tokens_per_s_ratio"] = round(ours["tokens_per_s"] / theirs["tokens_per_s"], 3)
        report["p99_ratio"] = round(ours["between_tokens_ms"]["p99"] / theirs["between_tokens_ms"]["p99"], 3)
    print(json.dumps(report, indent=1))
    return 1 if report["mete"]["errors"] or report["mete"]["leak"] else 0


if __name__ == "__main__":
    sys.exit(main())
