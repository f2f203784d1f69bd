#!/usr/bin/env python3
"""Closed-loop load on an OpenAI-compatible completions server: each client sends its next request when the last one
has ended. Standard library only.

    bench/peers/load.py --url http://127.0.0.1:8080 --clients 4 --requests 16 --text wikitext2-valid.txt

Prints one JSON object: generated tokens per second of the whole run and of its busy part (all clients running), time to
first token and time between tokens (p50, p90, p99, in seconds), and every failed request. Prompts are different
stretches of the text, so that no prefix cache helps. Exit status 1 if a request failed.
"""
import argparse
import asyncio
import json
import math
import statistics
import sys
import time
import urllib.parse


class Failed(Exception):
    """A request that did not do what was asked."""


def quantile(values, share):
    """Nearest-rank quantile; None for no values."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def prompts(text, count, words):
    """`count` prompts of `words` words each, from places spread over the text."""
    parts = text.split()
    if len(parts) < words:
        raise SystemExit(f"load.py: the text has {len(parts)} words, a prompt takes {words}")
    step = max(1, (len(parts) - words) // max(1, count))
    return [" ".join(parts[i * step % (len(parts) - words + 1):][:words]) for i in range(count)]


async def read_events(reader):
    """Yields the data of each server-sent event of a response, whether chunked or not."""
    status = await reader.readline()
    fields = status.decode("latin-1").split(None, 2)
    code = int(fields[1]) if len(fields) > 1 and fields[1].isdigit() else 0
    chunked, length = False, None
    while True:
        line = (await reader.readline()).decode("latin-1").strip()
        if not line:
            break
        name, _, value = line.partition(":")
        if name.lower() == "transfer-encoding":
            chunked = "chunked" in value.lower()
        if name.lower() == "content-length":
            length = int(value)
    if code != 200:
        body = await reader.read(2000 if length is None else min(length, 2000))
        raise Failed(f"HTTP {status.decode('latin-1').strip()}: {body.decode('utf-8', 'replace').strip()}")
    buffer = b""
    while True:
        if chunked:
            size = (await reader.readline()).split(b";")[0].strip()
            if not size:
                raise Failed("the response ended within a chunk")
            size = int(size, 16)
            data = await reader.readexactly(size)
            await reader.readline()
        else:
            data = await reader.read(65536)
        if not data:
            return
        buffer += data
        while b"\n\n" in buffer.replace(b"\r\n", b"\n"):
            buffer = buffer.replace(b"\r\n", b"\n")
            event, buffer = buffer.split(b"\n\n", 1)
            lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines:
                yield b"\n".join(lines).decode("utf-8", "replace")


async def one_request(address, body, clock=time.monotonic):
    """Sends one streaming request; returns {"start", "times" of each piece of text, "tokens"}."""
    host, port, path = address
    start = clock()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        payload = json.dumps(body).encode()
        writer.write(f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
                     f"Content-Length: {len(payload)}\r\nConnection: close\r\n\r\n".encode() + payload)
        await writer.drain()
        times, usage, finished = [], None, False
        async for data in read_events(reader):
            if data == "[DONE]":
                finished = True
                break
            event = json.loads(data)
            if "error" in event:
                raise Failed(str(event["error"]))
            usage = event.get("usage") or usage
            for choice in event.get("choices", []):
                if choice.get("text"):
                    times.append(clock())
                finished = finished or choice.get("finish_reason") is not None
        if not finished:
            raise Failed("the stream ended without a finish_reason")
        tokens = (usage or {}).get("completion_tokens") or len(times)
        return {"start": start, "times": times, "tokens": tokens, "end": clock()}
    finally:
        writer.close()


async def run(arguments, texts):
    url = urllib.parse.urlsplit(arguments.url)
    address = (url.hostname, url.port or 80, url.path.rstrip("/") + "/v1/completions")
    queue, done, failures = list(enumerate(texts)), [], []

    async def client():
        while queue:
            number, prompt = queue.pop(0)
            body = {"prompt": prompt, "max_tokens": arguments.max_tokens, "temperature": 0, "stream": True,
                    "ignore_eos": True, "stream_options": {"include_usage": True}}
            if arguments.model:
                body["model"] = arguments.model
            try:
                done.append(await asyncio.wait_for(one_request(address, body), arguments.timeout))
            except (Failed, OSError, ValueError, asyncio.IncompleteReadError, asyncio.TimeoutError) as error:
                failures.append(f"request {number}: {type(error).__name__}: {error}")

    await asyncio.gather(*(client() for _ in range(arguments.clients)))
    return done, failures


def summary(done, failures, clients):
    """Figures of all requests that ended well."""
    figures = {"clients": clients, "requests": len(done), "failures": failures}
    if not done:
        return figures
    begin, end = min(r["start"] for r in done), max(r["end"] for r in done)
    tokens = sum(r["tokens"] for r in done)
    figures.update(wall_s=end - begin, tokens=tokens, tokens_per_s=tokens / (end - begin))
    # Busy: from when every client has had a token to when the first client found no more work.
    starts = sorted(r["times"][0] for r in done if r["times"])
    ends = sorted(r["end"] for r in done)
    if len(starts) >= clients and len(ends) >= clients:
        first, last = starts[clients - 1], ends[-clients]
        pieces = sum(first <= t <= last for r in done for t in r["times"])
        if last > first:
            figures["busy_pieces_per_s"] = pieces / (last - first)
    ttft = [r["times"][0] - r["start"] for r in done if r["times"]]
    gaps = [b - a for r in done for a, b in zip(r["times"], r["times"][1:])]
    for name, values in (("ttft_s", ttft), ("between_tokens_s", gaps)):
        figures[name] = {f"p{round(100 * q)}": quantile(values, q) for q in (0.5, 0.9, 0.99)}
        figures[name]["mean"] = statistics.fmean(values) if values else None
    return figures


def parse_arguments(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="of the server, without /v1")
    parser.add_argument("--text", required=True, help="file that prompts are taken from")
    parser.add_argument("--clients", type=int, default=4, help="requests at a time")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--words", type=int, default=96, help="of a prompt")
    parser.add_argument("--max-tokens", type=int, default=64, help="generated per request; end tokens are ignored")
    parser.add_argument("--model", help="the request's model field, where a server wants one")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for one request")
    arguments = parser.parse_args(argv)
    if min(arguments.clients, arguments.requests, arguments.words, arguments.max_tokens) < 1:
        parser.error("--clients, --requests, --words and --max-tokens are at least 1")
    return arguments


def measure(arguments):
    with open(arguments.text, encoding="utf-8", errors="replace") as file:
        texts = prompts(file.read(4 << 20), arguments.requests, arguments.words)
    return summary(*asyncio.run(run(arguments, texts)), arguments.clients)


def main():
    figures = measure(parse_arguments())
    print(json.dumps(figures, indent=1))
    return 1 if figures["failures"] or not figures["requests"] else 0


if __name__ == "__main__":
    sys.exit(main())
