#!/usr/bin/env python3
"""Checks that `mete serve --memory-file FILE` keeps to its ceiling while four clients ask and the ceiling moves: the model
file evicted from the page cache,

  (a) in a memory cgroup without a limit: the group's highest usage is at most the ceiling;
  (b) in a group whose limit is the ceiling, swap off: the limit was never hit (v1: failcnt 0; v2: max 0, oom 0).

    bench/ceiling_serve.py -m MODEL.gguf --text FILE [-c 512] [--ceilings 3] [-o RESULTS.md]

While the clients ask, the ceiling goes down by POST /memory, up by SIGUSR1, down and up again; one below the floor is refused.
Every answer must be the one of a server without a ceiling, and the server must end with exit code 0 at SIGTERM. Needs root, or
a memory cgroup that may be written to: skipped (exit 77, with the number of checks that were not made) where there is none.
"""
import argparse
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

from ceiling_check import MIB, Group, evict, need_group, size

CLIENTS, KEY = 4, "key-of-this-check"


class Server:
    def __init__(self, arguments, ceiling_file, group):
        command = [arguments.mete, "serve", "-m", arguments.model, "--port", "0", "-np", str(CLIENTS), "-c",
                   str(arguments.context), "--api-key", KEY, "--log-format", "json", "--max-body", "1", *arguments.extra]
        if ceiling_file:
            command += ["--memory-file", ceiling_file]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=group.enter if group else None)
        self.log, self.port = [], None
        for line in self.process.stderr:
            self.log.append(line.strip())
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "listening":
                self.port = int(event["address"].rsplit(":", 1)[1])
            if event.get("event") == "ready":
                break
        threading.Thread(target=lambda: self.log.extend(line.strip() for line in self.process.stderr), daemon=True).start()

    def post(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request("POST", path, json.dumps(body),
                               {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def props(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/props", headers={"Authorization": f"Bearer {KEY}"})
        answer = json.loads(connection.getresponse().read())
        connection.close()
        return answer["mete"]["memory"]

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)


def ask(server, prompts, answers):
    """Four clients, each with its share of the prompts, one after the other."""

    def client(first):
        for i in range(first, len(prompts), CLIENTS):
            status, answer = server.post("/v1/completions", {"prompt": prompts[i], "max_tokens": 40, "temperature": 0,
                                                             "ignore_eos": True})
            answers[i] = answer["choices"][0]["text"] if status == 200 else f"{status} {answer}"

    threads = [threading.Thread(target=client, args=(i,)) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    return threads


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the ceiling did not change in time")
        time.sleep(0.05)


def change(server, floor, ceiling, file):
    """Down, up by the file, down, up; the moves that were made."""
    low, moves = floor + (ceiling - floor) // 4, []
    for step in range(2):
        status, answer = server.post("/memory", {"memory": str(low)})
        moves.append(status == 200 and answer["memory"] == low)
        status, answer = server.post("/memory", {"memory": str(floor // 2)})
        moves.append(status == 400 and "below the floor" in json.dumps(answer))
        if step == 0:
            pathlib.Path(file).write_text(str(ceiling))
            server.process.send_signal(signal.SIGUSR1)
            until(lambda: server.props()["ceiling"] == ceiling)
        else:
            status, answer = server.post("/memory", {"memory": str(ceiling)})
            moves.append(status == 200)
    return moves


def run(arguments, prompts, ceiling, limit, want):
    evict(arguments.model)
    with Group(limit) as group, tempfile.NamedTemporaryFile("w", suffix=".ceiling") as file:
        file.write(str(ceiling))
        file.flush()
        server = Server(arguments, file.name, group)
        row = {"moves": [], "same": 0, "code": None, "floor": None}
        if server.process.poll() is None and server.port is not None:
            answers = [None] * len(prompts)
            loaded = server.props()["floor"]
            threads = ask(server, prompts, answers)
            try:
                row["moves"] = change(server, loaded, ceiling, file.name)
            except (OSError, http.client.HTTPException, TimeoutError) as error:
                server.log.append(repr(error))
            for thread in threads:
                thread.join()
            row["same"] = sum(a == b for a, b in zip(answers, want))
        row["code"] = server.end()
        row.update(peak=group.peak(), failures=group.failures(), log=server.log)
    return row


def floor_of(arguments):
    with tempfile.NamedTemporaryFile("w", suffix=".ceiling") as file:
        file.write("2MiB")
        file.flush()
        server = Server(arguments, file.name, None)
        server.process.wait()
        text = " ".join(server.log)
        found = re.search(r"below the floor of ([\d.]+) MiB", text)
        if not found:
            sys.exit(f"ceiling_serve.py: the server did not name its floor: {text}")
        return int(float(found[1]) * MIB) + MIB // 8


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--text", required=True, help="file from which the prompts are cut")
    parser.add_argument("-c", "--context", type=int, default=512)
    parser.add_argument("--ceilings", type=int, default=3)
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--step", default="24MiB", help="from one ceiling to the next; the first is one above the floor")
    parser.add_argument("--mete", default=os.environ.get("METE_BINARY", "build/release/mete"))
    parser.add_argument("-o", "--output", help="Markdown file to append the table to")
    parser.add_argument("extra", nargs="*", help="options for mete serve, after --")
    arguments = parser.parse_args()
    need_group(2 * arguments.ceilings)
    text = pathlib.Path(arguments.text).read_bytes().decode(errors="replace")
    length = 2 * arguments.context  # characters: most of the context
    prompts = [text[i * length // 2:i * length // 2 + length] for i in range(arguments.requests)]
    free = Server(arguments, None, None)
    want = [None] * len(prompts)
    for thread in ask(free, prompts, want):
        thread.join()
    free.end()
    floor = floor_of(arguments)
    lines = ["| ceiling MiB | (a) peak of the group | share | (b) limit hit | exit | answers that are right | changes of the"
             " ceiling | holds |", "|" + " ---: |" * 8]
    good = True
    for i in range(arguments.ceilings):
        ceiling = floor + (i + 1) * size(arguments.step)
        loose, tight = run(arguments, prompts, ceiling, None, want), run(arguments, prompts, ceiling, ceiling, want)
        both = (loose, tight)
        holds = (loose["peak"] <= ceiling and tight["failures"] == 0 and all(r["code"] == 0 for r in both) and
                 all(r["same"] == len(prompts) and len(r["moves"]) == 5 and all(r["moves"]) for r in both))
        good = good and holds
        lines.append(f"| {ceiling / MIB:.1f} | {loose['peak'] / MIB:.1f} | {100 * loose['peak'] / ceiling:.1f} % |"
                     f" {tight['failures']} | {loose['code']}, {tight['code']} | {loose['same']} + {tight['same']} of"
                     f" {len(prompts)} each | {sum(loose['moves'])} + {sum(tight['moves'])} of 5 each |"
                     f" {'yes' if holds else 'NO'} |")
        print("\n".join(lines) if i == 0 else lines[-1], flush=True)
        if not holds:
            print("\n".join(loose["log"] + tight["log"]), file=sys.stderr)
    if arguments.output:
        with open(arguments.output, "a") as out:
            out.write(f"\n## mete serve: {pathlib.Path(arguments.model).name}, -np {CLIENTS} -c {arguments.context}, floor "
                      f"{floor / MIB:.1f} MiB, {len(prompts)} requests by {CLIENTS} clients\n\n" + "\n".join(lines) + "\n")
    print("PASS" if good else "FAIL")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
