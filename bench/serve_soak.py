#!/usr/bin/env python3
"""Random load on `mete serve` for some minutes: answers of all APIs, cancels, disconnects, oversize bodies, bad JSON, bytes
that are no HTTP. Passes if the server never dies, its log shows no internal error, no sequence is left at the end, and
resident memory is flat: the largest value of the last third is at most 5 % above that of the middle third.

    bench/serve_soak.py -m MODEL.gguf --minutes 2 [--clients 24] [--seed 1]"""
import argparse
import asyncio
import json
import pathlib
import random
import subprocess
import sys
import time

from serve_load import ROOT, free_port, rss_mib

APIS = ("/completion", "/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings",
        "/tokenize", "/apply-template")


def random_body(rng, path):
    text = " ".join(rng.choice(("one", "two", "red", "blue", "sky", "42", "{", "\u00e9", "<|im_end|>"))
                    for _ in range(rng.choice((1, 5, 40, 150))))
    tokens = rng.choice((1, 8, 32, 64))
    messages = [{"role": "user", "content": text}]
    common = {"temperature": rng.random(), "seed": rng.randrange(1000), "stream": rng.random() < 0.6}
    if rng.random() < 0.1:
        common["n"] = 2
    return {"/completion": {**common, "prompt": text, "n_predict": tokens, "stop": rng.choice((None, ["a"]))},
            "/v1/completions": {**common, "prompt": [text, "x"], "max_tokens": tokens},
            "/v1/chat/completions": {**common, "messages": messages, "max_tokens": tokens,
                                     "logprobs": rng.random() < 0.2,
                                     "response_format": rng.choice((None, None, {"type": "json_object"}))},
            "/v1/messages": {"messages": messages, "max_tokens": tokens, "stream": common["stream"]},
            "/v1/responses": {"input": text, "max_output_tokens": tokens, "stream": common["stream"]},
            "/v1/embeddings": {"input": text}, "/tokenize": {"content": text},
            "/apply-template": {"messages": messages}}[path]


def random_bytes(rng):
    """A request, and what status may come back."""
    kind = rng.random()
    path = rng.choice(APIS)
    body = json.dumps(random_body(rng, path)).encode()
    if kind < 0.08:
        body = body[:rng.randrange(len(body))]
    elif kind < 0.12:
        body = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 400)))
    elif kind < 0.15:
        body = body.replace(b"8", b"-8").replace(b"\"text\"", b"[[[[")
    elif kind < 0.17:
        return b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"a" * 5000
    elif kind < 0.19:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(1, 2000)))
    elif kind < 0.22:
        return rng.choice((b"GET /metrics", b"GET /slots", b"GET /health", b"GET /../x", b"DELETE /props")) + \
            b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    return b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body


async def client(port, rng, deadline, counts):
    while time.monotonic() < deadline:
        data = random_bytes(rng)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            counts["refused"] = counts.get("refused", 0) + 1
            await asyncio.sleep(0.05)
            continue
        try:
            cut = len(data) if rng.random() < 0.9 else rng.randrange(len(data))
            writer.write(data[:cut])
            patience = 0.001 * 10 ** (4 * rng.random()) if rng.random() < 0.3 or cut < len(data) else 120
            answer = await asyncio.wait_for(reader.read(-1), patience)
            status = answer[9:12].decode(errors="replace") if answer.startswith(b"HTTP/1.1 ") else "none"
        except asyncio.TimeoutError:
            status = "left"
        except OSError:
            status = "reset"
        counts[status] = counts.get(status, 0) + 1
        if rng.random() < 0.2:
            writer.transport.abort()
        else:
            writer.close()


async def metric(port, name):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    text = (await reader.read(-1)).decode()
    writer.close()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name + "{"))


async def soak(port, pid, args):
    deadline = time.monotonic() + 60 * args.minutes
    counts, samples = {}, []
    clients = [asyncio.create_task(client(port, random.Random(args.seed * 1000 + i), deadline, counts))
               for i in range(args.clients)]
    while time.monotonic() < deadline:
        await asyncio.sleep(min(1, 60 * args.minutes / 60))
        samples.append(rss_mib(pid))
    await asyncio.gather(*clients)
    left = None
    for _ in range(100):
        left = await metric(port, "vllm:num_requests_running") + await metric(port, "vllm:num_requests_waiting")
        if left == 0:
            break
        await asyncio.sleep(0.1)
    return counts, samples, left


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-m", "--model", required=True)
    p.add_argument("--mete", default=str(ROOT / "build/release/mete"))
    p.add_argument("--minutes", type=float, default=2)
    p.add_argument("--clients", type=int, default=24)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--log", default="/dev/null")
    args = p.parse_args()
    port = free_port()
    with open(args.log, "wb") as log:
        process = subprocess.Popen([args.mete, "serve", "-m", args.model, "--port", str(port), "-np", "8", "-c", "512",
                                    "--chat-template", "chatml", "--max-queue", "16", "--timeout", "20"], stderr=log)
        for _ in range(600):
            try:
                asyncio.run(metric(port, "vllm:num_requests_running"))
                break
            except OSError:
                time.sleep(0.1)
        counts, samples, left = asyncio.run(soak(port, process.pid, args))
        alive = process.poll() is None
        process.terminate()
        code = process.wait(timeout=60)
    third = max(1, len(samples) // 3)
    middle, last = max(samples[third:2 * third] or [0]), max(samples[-third:])
    flat = last <= 1.05 * middle
    failed = counts.get("500", 0)
    print(json.dumps({"minutes": args.minutes, "answers": counts, "alive": alive, "exit_code": code, "sequences_left": left,
                      "rss_mib": {"first": samples[0], "middle_third": middle, "last_third": last}, "flat": flat}, indent=1))
    return 0 if alive and code == 0 and left == 0 and flat and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
