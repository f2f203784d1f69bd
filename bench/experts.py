#!/usr/bin/env python3
"""Speed with some of a model's experts in memory, as a share of the bound.

    bench/experts.py -m MODEL.gguf --mete build/release/mete --drive build/release/bench/bench_drive \\
        [--pack MODEL.gguf.experts] [--slots 8,16] [--memory 8GiB] [--prefetch default,0,8] [--rounds 3] [--json OUT]

Each round runs the model with all experts in memory, measures the drive, and runs every configuration with the
file evicted from the page cache (POSIX_FADV_DONTNEED) and direct reads. The bound of a run is
max(resident time, bytes that had to be read / drive rate), the rate measured in the same round at the block size of the
reads and at the queue depth that the run had on average: bytes of a layer's misses over the block. Bytes that had
to be read are those of misses and of useful read-ahead; wasted read-ahead is the run's own loss. The drive is measured with reads into
huge pages, as the store's; what reads into pages of 4 KiB would allow is shown beside it. Medians over rounds.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

PAGE = 4096
PROMPT = ("Write a long and detailed essay about the history of the steam engine, from the first pumps in the mines to the "
          "railways, and explain how each part of a modern steam engine works. ")


def evict(path):
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(arguments, extra):
    for path in filter(None, (arguments.model, arguments.pack)):
        evict(path)
    command = [arguments.mete, "run", "-m", arguments.model, "--no-conversation", "-p", PROMPT * arguments.repeat, "-n",
               str(arguments.tokens), "--ignore-eos", "--temp", "0", "--json", "-c", "1024", *arguments.extra.split(), *extra]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: {done.stderr}")
    return json.loads(done.stdout)


def drive_rate(arguments, path, block, depth, *small):
    done = subprocess.run([arguments.drive, path, str(block), str(depth), "0.5", *small], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return float(done.stdout)


def figures(arguments, reply, resident, phase):
    """One phase of one run beside its bound."""
    receipt = reply["receipt"]
    ledger, seconds = receipt["ledger"][phase], receipt[f"{phase}_s"]
    tokens = receipt[f"{phase}_tokens"]
    misses, hits = ledger.get("expert_misses", 0), ledger.get("expert_hits", 0)
    packed = "expert pack" in receipt["experts"]["io"]
    reads, read_bytes = ledger.get("disk_reads", 0), ledger.get("disk_bytes", 0)
    block = -(-read_bytes // max(1, reads) // PAGE) * PAGE or PAGE
    useful = read_bytes
    if receipt["experts"]["prefetched"]:
        wasted = receipt["experts"]["prefetched"] - receipt["experts"]["prefetched_useful"]
        useful = read_bytes - wasted * block * (1 if packed else 3)  # over the whole run: a lower bound of need
    visits = ledger.get("steps", 1) * arguments.layers
    depth = max(1, round(reads / max(1, visits)))
    rate = drive_rate(arguments, arguments.pack if packed else arguments.model, block, min(depth, 32))
    small = drive_rate(arguments, arguments.pack if packed else arguments.model, block, min(depth, 32), "small")
    bound = max(resident["receipt"][f"{phase}_s"], max(0, useful) / rate)
    small_bound = max(resident["receipt"][f"{phase}_s"], max(0, useful) / small)
    return {"phase": phase, "tokens_s": tokens / seconds, "resident_tokens_s": tokens / resident["receipt"][f"{phase}_s"],
            "bound_tokens_s": tokens / bound, "share": bound / seconds,
            "share_small_pages": small_bound / seconds, "drive_small_mb_s": small / 1e6, "hit_rate": hits / max(1, hits + misses),
            "misses": misses, "mb_read": read_bytes / 1e6, "stall_s": ledger["parts"].get("expert_wait", {}).get("s", 0),
            "seconds": seconds, "drive_mb_s": rate / 1e6, "block": block, "depth": depth}


def configurations(arguments):
    rooms = [(f"{slots} slots", ["--expert-slots", slots]) for slots in filter(None, arguments.slots.split(","))]
    rooms += [(f"--memory {size}", ["--memory", size]) for size in filter(None, arguments.memory.split(","))]
    for room, options in rooms:
        for pack in ["", arguments.pack] if arguments.pack else [""]:
            for prefetch in arguments.prefetch.split(","):
                extra = [*options, *(["--expert-prefetch", prefetch] if prefetch != "default" else [])]
                yield f"{room}, {'pack' if pack else 'gguf'}, prefetch {prefetch}", extra + (["--expert-pack", pack] if pack else [])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--mete", default=os.environ.get("METE_BIN", "build/release/mete"))
    parser.add_argument("--drive", default="build/release/bench/bench_drive")
    parser.add_argument("--pack", default="")
    parser.add_argument("--slots", default="8,16")
    parser.add_argument("--memory", default="", help="ceilings")
    parser.add_argument("--prefetch", default="default,0")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeat", type=int, default=12, help="of the prompt")
    parser.add_argument("--layers", type=int, default=30, help="layers with experts")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--extra", default="", help="more options of every run")
    parser.add_argument("--json", default="")
    arguments = parser.parse_args()
    rows = {}
    for number in range(arguments.rounds):
        resident = run(arguments, [])
        for name, extra in configurations(arguments):
            reply = run(arguments, extra)
            if reply["logits_hash"] != resident["logits_hash"]:
                sys.exit(f"{name}: other bits than the resident run")
            for phase in ("prefill", "decode"):
                rows.setdefault((name, phase), []).append(figures(arguments, reply, resident, phase))
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
    out = []
    print("| configuration | phase | tokens/s | resident | bound | share of bound | of that with 4 KiB pages | hits | MB read | waited s | drive MB/s, huge / 4 KiB pages (block, depth) |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for (name, phase), values in rows.items():
        row = {key: statistics.median(v[key] for v in values) for key in values[0] if key != "phase"}
        out.append({"configuration": name, "phase": phase, **row, "rounds": values})
        print(f"| {name} | {phase} | {row['tokens_s']:.1f} | {row['resident_tokens_s']:.1f} | {row['bound_tokens_s']:.1f} | "
              f"{100 * row['share']:.0f} % | {100 * row['share_small_pages']:.0f} % | {100 * row['hit_rate']:.1f} % | {row['mb_read']:.1f} | {row['stall_s']:.3f} | "
              f"{row['drive_mb_s']:.0f} / {row['drive_small_mb_s']:.0f} ({row['block']:.0f}, {row['depth']:.0f}) |")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(out, file, indent=1)


if __name__ == "__main__":
    main()
