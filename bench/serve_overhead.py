#!/usr/bin/env python3
"""What the server costs at one stream: the same generation by `mete run` and through `mete serve`, in turn.

    bench/serve_overhead.py -m MODEL.gguf [--tokens 256] [--rounds 7] [-t 1] [--record FILE.json]

Every round has both, in an order that changes. The engine's rate is the decode rate of the receipt of `mete run`; the server's
is measured twice: by its own `timings`, and by the client's clock from the first event of the stream to the last. Greedy, end
tokens ignored; both must give the same text. The client only stamps what arrives and reads it afterwards, for it shares the
CPUs. Overhead is 1 - (server's rate / engine's rate) within a round; the median and the quartiles over rounds are printed. Exit
status 1 if the texts differ or a median of the overhead is not under `--bound`. Rounds disturbed by other processes are
repeated; what was left is in `other_cpus`."""
import argparse
import http.client
import json
import os
import pathlib
import platform
import resource
import socket
import statistics
import subprocess
import sys
import time

from serve_load import ROOT, free_port

sys.path.insert(0, str(ROOT / "bench" / "peers"))
from engines import busy_seconds, cpu_name  # noqa: E402

PROMPT = "The history of the steam engine begins"
APIS = {"/completion": lambda n: {"prompt": PROMPT, "n_predict": n},
        "/v1/completions": lambda n: {"prompt": PROMPT, "max_tokens": n}}


def by_engine(args):
    command = [args.mete, "run", "-m", args.model, "-p", PROMPT, "--no-conversation", "-n", str(args.tokens), "--temp", "0",
               "--ignore-eos", "--json", "-c", str(args.context), *args.thread_options]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    receipt = answer["receipt"]
    return {"text": answer["text"], "rate": receipt["decode_tokens"] / receipt["decode_s"]}


def by_server(port, path, args):
    body = {**APIS[path](args.tokens), "temperature": 0, "ignore_eos": True, "stream": True, "cache_prompt": False}
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        s.sendall(b"POST %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" %
                  (path.encode(), len(data)) + data)
        pieces = []
        while piece := s.recv(65536):
            pieces.append((time.perf_counter(), piece))
    return read_stream(pieces)


def read_stream(pieces):
    """{"text", "tokens", "client": tokens/s by the client's clock, "timings": by the server's}"""
    raw = b"".join(piece for _, piece in pieces)
    ends, at = [], 0
    for when, piece in pieces:
        at += len(piece)
        ends.append((at, when))
    text, moments, timings, cursor = "", [], None, 0
    while (start := raw.find(b"data: {", cursor)) >= 0:
        cursor = raw.index(b"\n", start)
        event = json.loads(raw[start + 6:cursor])
        timings = event.get("timings") or timings
        piece = event["content"] if "content" in event else "".join(c.get("text", "") for c in event.get("choices", []))
        if piece:
            text += piece
            moments.append(next(when for end, when in ends if end >= cursor))
    tokens = timings["predicted_n"]
    return {"text": text, "tokens": tokens, "events": len(moments),
            "client": (tokens - 1) / (moments[-1] - moments[0]), "timings": timings["predicted_per_second"]}


def own_seconds(pid):
    """CPU time of this process, its ended children, and the server."""
    ticks = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK") + sum(u.ru_utime + u.ru_stime for u in own)


def one_round(order, port, pid, args):
    """(what each side answered, CPUs that other processes used meanwhile)."""
    begin, busy, own = time.monotonic(), busy_seconds(), own_seconds(pid)
    answers = {side: by_engine(args) if side == "engine" else by_server(port, args.api, args) for side in order}
    others = busy_seconds() - busy - (own_seconds(pid) - own)
    return answers, max(0.0, others / (time.monotonic() - begin))


def quiet_round(order, port, pid, args):
    best = None
    for _ in range(args.tries):
        found = one_round(order, port, pid, args)
        best = found if best is None or found[1] < best[1] else best
        if best[1] <= args.quiet:
            break
    return best


def wait_until_ready(port, process):
    for _ in range(600):
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit("the server did not start")


def quartiles(values):
    q = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": round(q[1], 5), "q1": round(q[0], 5), "q3": round(q[2], 5)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-m", "--model", required=True)
    p.add_argument("--mete", default=str(ROOT / "build/release/mete"))
    p.add_argument("--tokens", type=int, default=256)
    p.add_argument("--rounds", type=int, default=7)
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--api", choices=APIS, default="/completion")
    p.add_argument("--bound", type=float, default=0.03)
    p.add_argument("-t", "--threads", type=int)
    p.add_argument("--quiet", type=float, default=0.1, help="a round disturbed by more CPUs than this is repeated")
    p.add_argument("--tries", type=int, default=3)
    p.add_argument("--record")
    args = p.parse_args()
    args.thread_options = ["-t", str(args.threads)] if args.threads else []
    port = free_port()
    server = subprocess.Popen([args.mete, "serve", "-m", args.model, "--port", str(port), "-c", str(args.context),
                               *args.thread_options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    rounds, same = [], True
    try:
        wait_until_ready(port, server)
        by_server(port, args.api, args)
        for i in range(args.rounds):
            order = ("engine", "server") if i % 2 == 0 else ("server", "engine")
            answers, others = quiet_round(order, port, server.pid, args)
            engine, served = answers["engine"], answers["server"]
            same = same and engine["text"] == served["text"] and served["tokens"] == args.tokens
            rounds.append({"engine": engine["rate"], "timings": served["timings"], "client": served["client"],
                           "other_cpus": others})
    finally:
        server.terminate()
        server.wait()
    overhead = {k: quartiles([1 - r[k] / r["engine"] for r in rounds]) for k in ("timings", "client")}
    passed = same and all(v["median"] < args.bound for v in overhead.values())
    report = {"passed": passed, "model": pathlib.Path(args.model).name, "cpu": cpu_name(), "kernel": platform.release(), "api": args.api,
              "threads": args.threads, "tokens": args.tokens, "same_text": same,
              "tokens_per_s": {k: quartiles([r[k] for r in rounds]) for k in ("engine", "timings", "client")},
              "overhead": overhead, "rounds": [{k: round(v, 2) for k, v in r.items()} for r in rounds]}
    print(json.dumps(report, indent=1))
    if args.record:
        pathlib.Path(args.record).write_text(json.dumps(report, indent=1) + "\n")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
