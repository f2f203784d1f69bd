#!/usr/bin/env python3
"""Longest pause between two pieces of a stream while a long prompt arrives, for sizes of --chunked-prefill-size.

    bench/prefill_pause.py -m MODEL.gguf [--mete build/release/mete] [--sizes 512,128,32] [--repeat 3] [-- OPTIONS]
"""
import argparse
import http.client
import json
import statistics
import subprocess
import threading
import time

PROMPT = [1000 + i % 5000 for i in range(1500)]


def post(port, body, on_piece=None):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/completion", json.dumps({**body, "cache_prompt": False}))
    response = connection.getresponse()
    if response.status != 200:
        raise SystemExit(response.read().decode())
    for line in response:
        if on_piece and line.startswith(b"data: "):
            on_piece(time.monotonic())


def measure(port):
    """(longest pause of the stream, time to the first token of the long prompt), in seconds."""
    times, running = [], threading.Event()

    def on_piece(now):
        times.append(now)
        if len(times) == 20:
            running.set()

    body = {"prompt": "Once", "n_predict": 120, "ignore_eos": True, "stream": True}
    stream = threading.Thread(target=post, args=(port, body, on_piece))
    stream.start()
    running.wait()
    begin = time.monotonic()
    post(port, {"prompt": PROMPT, "n_predict": 1})
    first = time.monotonic() - begin
    stream.join()
    return max(b - a for a, b in zip(times, times[1:])), first


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--mete", default="build/release/mete")
    parser.add_argument("--sizes", default="512,128,32")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("options", nargs="*", help="of mete serve, after --")
    args = parser.parse_args()
    print("| size | longest pause ms | first token of 1500 s |\n|---|---|---|")
    for size in args.sizes.split(","):
        command = [args.mete, "serve", "-m", args.model, "-c", "2048", "--port", "0", "--log-format", "json",
                   "--chunked-prefill-size", size, *args.options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
            port = None
            for line in server.stderr:
                event = json.loads(line) if line.startswith("{") else {}
                if event.get("event") == "listening":
                    port = int(event["address"].rsplit(":", 1)[1])
                if event.get("event") == "ready":
                    break
            threading.Thread(target=server.stderr.read, daemon=True).start()
            pauses, firsts = zip(*(measure(port) for _ in range(args.repeat)))
            server.terminate()
        print(f"| {size} | {1000 * statistics.median(pauses):.0f} | {statistics.median(firsts):.2f} |", flush=True)


if __name__ == "__main__":
    main()
