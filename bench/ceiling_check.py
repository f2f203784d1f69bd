#!/usr/bin/env python3
"""Checks that `mete run --memory SIZE` keeps to SIZE, everything counted: the model file evicted from the page cache,

  (a) in a memory cgroup without a limit: the group's highest usage is at most SIZE;
  (b) in a group whose limit is SIZE, swap off: exit code 0, and the limit was never hit (v1: failcnt 0; v2: max 0, oom 0).

    bench/ceiling_check.py -m MODEL.gguf --text FILE [-c 1024] [--ceilings 8] [--from 112MiB] [-o RESULTS.md]

The ceilings lie between the floor (or --from) and what the run takes without one. The prompt takes most of
the context, the reply fills the rest, so that all KV is touched. "missed" counts experts and rows of embedding tables
that were read from the drive. Needs root, or a memory cgroup that may be written
to: skipped (exit 77, with the number of checks that were not made) where there is none. Every reply must have the
same fingerprint of logits.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOTS = (("v1", pathlib.Path("/sys/fs/cgroup/memory")), ("v2", pathlib.Path("/sys/fs/cgroup")),
         ("v2", pathlib.Path("/sys/fs/cgroup/unified")))
MIB = 1 << 20


class Group:
    """A memory cgroup of its own for one process."""

    FILES = {"v1": ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.swappiness", "0"),
             "v2": ("memory.max", "memory.peak", "memory.swap.max", "0")}

    def __init__(self, limit=None):
        for self.version, root in ROOTS:
            self.path = root / f"mete_ceiling_{os.getpid()}"
            limit_file, self.peak_file, swap_file, swap_off = self.FILES[self.version]
            try:
                self.path.mkdir()
            except OSError:
                continue
            if (self.path / self.peak_file).exists() and (self.path / limit_file).exists():
                if (self.path / swap_file).exists():
                    (self.path / swap_file).write_text(swap_off)
                if limit is not None:
                    (self.path / limit_file).write_text(str(limit))
                return
            self.path.rmdir()
        raise OSError("no writable memory cgroup")

    def enter(self):
        (self.path / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self):
        return int((self.path / self.peak_file).read_text())

    def failures(self):
        if self.version == "v1":
            return int((self.path / "memory.failcnt").read_text())
        events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
        return int(events["max"]) + int(events["oom"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.path.rmdir()


def need_group(checks):
    """Ends the script with 77 where there is no memory cgroup to work in."""
    try:
        with Group():
            pass
    except OSError as error:
        print(f"{pathlib.Path(sys.argv[0]).name}: {error}: {checks} checks skipped")
        sys.exit(77)


def evict(path):
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def command(arguments, prompt, ceiling):
    out = [arguments.mete, "run", "-m", arguments.model, "-no-cnv", "-f", prompt, "-c", str(arguments.context), "-n", "-1",
           "--ignore-eos", "--temp", "0", "--json"]
    return out + (["--memory", str(ceiling)] if ceiling else []) + arguments.extra


def run(arguments, prompt, ceiling, limit=None):
    evict(arguments.model)
    with Group(limit) as group:
        done = subprocess.run(command(arguments, prompt, ceiling), capture_output=True, text=True, preexec_fn=group.enter)
        row = {"code": done.returncode, "peak": group.peak(), "failures": group.failures(), "error": done.stderr.strip()}
    if done.returncode == 0:
        out = json.loads(done.stdout)
        receipt = out["receipt"]
        experts, tables = receipt.get("experts", {}), receipt.get("embeddings", {})
        total = lambda *counts: sum(c for c in counts if c is not None) if experts or tables else None
        row.update(hash=out["logits_hash"], unnamed=receipt["unnamed_bytes"], own_peak=receipt["memory_peak_bytes"],
                   floor=receipt.get("memory_floor_bytes"), slots=experts.get("slots_per_layer"),
                   missed=total(experts.get("experts_missed"), tables.get("rows_missed")),
                   disk=total(experts.get("disk_bytes"), tables.get("disk_bytes")),
                   prefill=receipt["prefill_tokens"] / max(receipt["prefill_s"], 1e-9),
                   decode=receipt["decode_tokens"] / max(receipt["decode_s"], 1e-9))
    return row


def size(text):
    units = {"KiB": 1 << 10, "MiB": MIB, "GiB": 1 << 30}
    for unit, factor in units.items():
        if text.endswith(unit):
            return int(float(text[:-3]) * factor)
    return int(text)


def table(arguments, rows):
    lines = ["| ceiling MiB | (a) peak of the group | share | (b) exit, limit hit | unnamed MiB | slots | missed | read MB |"
             " prefill t/s | decode t/s | holds |", "|" + " ---: |" * 11]
    number = lambda value, scale=1, digits=1: "-" if value is None else f"{value / scale:.{digits}f}"
    for ceiling, free, tight, holds in rows:
        lines.append(f"| {ceiling / MIB:.1f} | {free['peak'] / MIB:.1f} | {100 * free['peak'] / ceiling:.1f} % |"
                     f" {tight['code']}, {tight['failures']} | {number(free.get('unnamed'), MIB, 2)} |"
                     f" {free.get('slots') if free.get('slots') is not None else '-'} | {number(free.get('missed'), 1, 0)} |"
                     f" {number(free.get('disk'), 1e6)} | {number(free.get('prefill'))} | {number(free.get('decode'))} |"
                     f" {'yes' if holds else 'NO'} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--text", required=True, help="file whose beginning is the prompt")
    parser.add_argument("-c", "--context", type=int, default=1024)
    parser.add_argument("--ceilings", type=int, default=8)
    parser.add_argument("--from", dest="least", help="lowest ceiling (default: the floor)")
    parser.add_argument("--to", dest="most", help="highest ceiling (default: what it takes without one)")
    parser.add_argument("--mete", default=os.environ.get("METE_BINARY", "build/release/mete"))
    parser.add_argument("-o", "--output", help="Markdown file to append the table to")
    parser.add_argument("extra", nargs="*", help="options for mete run, after --")
    arguments = parser.parse_args()

    need_group(2 * arguments.ceilings)
    text = pathlib.Path(arguments.text).read_bytes().decode(errors="replace")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as prompt:
        prompt.write(text[:int(2.5 * arguments.context)])
        prompt.flush()
        free = run(arguments, prompt.name, None)
        if free["code"] != 0:
            sys.exit(f"ceiling_check.py: without a ceiling: {free['error']}")
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        floor = run(arguments, prompt.name, machine - 64 * MIB)["floor"]
        least = size(arguments.least) if arguments.least else floor
        most = size(arguments.most) if arguments.most else max(free["own_peak"] + 32 * MIB, least + 32 * MIB)
        rows, good = [], True
        for i in range(arguments.ceilings):
            ceiling = least + (most - least) * i // max(arguments.ceilings - 1, 1)
            loose, tight = run(arguments, prompt.name, ceiling), run(arguments, prompt.name, ceiling, ceiling)
            holds = (loose["code"] == tight["code"] == tight["failures"] == 0 and loose["peak"] <= ceiling and
                     loose["unnamed"] <= 16 * MIB and loose["hash"] == tight["hash"] == free["hash"])
            rows.append((ceiling, loose, tight, holds))
            good = good and holds
            print(table(arguments, rows).splitlines()[-1] if i else table(arguments, rows), flush=True)
            if not holds:
                print(f"  {loose['error']}\n  {tight['error']}", file=sys.stderr)
    if arguments.output:
        with open(arguments.output, "a") as out:
            name = pathlib.Path(arguments.model).name
            out.write(f"\n## {name}, -c {arguments.context}, floor {floor / MIB:.1f} MiB, without a ceiling "
                      f"{free['peak'] / MIB:.1f} MiB\n\n{table(arguments, rows)}\n")
    print("PASS" if good else "FAIL")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
