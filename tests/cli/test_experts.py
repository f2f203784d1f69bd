"""Experts that are not all in memory, as a user sees them: `mete pack`, `mete inspect --routing`, `mete replay`, and what
becomes of a run when its files change. tests/exactness/expert_store_test.cpp compares every way of keeping them."""
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import unittest
import unittest.mock
import xml.etree.ElementTree

from harness import BINARY, MODELS, TemporaryDirectory, mete, mete_json, tiny_model, tiny_moe
from serving import Server

SMOLMOE = MODELS / "smolmoe-268m-a81m-q4_0.gguf"
TEXT = "One two three, and a text that is long enough for a router to want this and that. " * 3
RUN = ("-p", "hello there", "-no-cnv", "-n", 6, "--ignore-eos", "--temp", 0, "--json")
PAGE = 4096


class WithFolder(unittest.TestCase):
    def setUp(self):
        self.folder = TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.model = pathlib.Path(self.folder.name, "moe.gguf")
        shutil.copyfile(tiny_moe(), self.model)
        self.pack = pathlib.Path(self.folder.name, "moe.experts")

    def path(self, name):
        return pathlib.Path(self.folder.name, name)

    def made(self):
        code, out, err = mete("pack", "-m", self.model, "-o", self.pack)
        self.assertEqual(code, 0, err)
        return out

    def refused(self, code, fragment, *args, lines=1):
        found, out, err = mete(*args)
        self.assertEqual((found, out), (code, ""), err)
        self.assertIn(fragment, err)
        self.assertEqual(err.count("\n"), lines, err)
        return err


class Pack(WithFolder):
    def test_a_pack_gives_the_bits_of_the_model_file(self):
        resident = mete_json("run", "-m", self.model, *RUN)
        self.assertIn("7 experts of 3 layers", self.made())
        self.assertFalse(self.path("moe.experts.partial").exists())
        self.assertEqual(self.pack.stat().st_size % PAGE, 0)
        plain = mete_json("run", "-m", self.model, *RUN, "--expert-slots", 2, "--expert-prefetch", 0)
        packed = mete_json("run", "-m", self.model, *RUN, "--expert-slots", 2, "--expert-prefetch", 0, "--expert-pack", self.pack)
        for run in (plain, packed):
            self.assertEqual(run["logits_hash"], resident["logits_hash"])
        a, b = plain["receipt"]["experts"], packed["receipt"]["experts"]
        self.assertEqual((a["experts_hit"], a["experts_missed"]), (b["experts_hit"], b["experts_missed"]))
        self.assertEqual(b["disk_reads"], b["experts_missed"])  # one read each
        self.assertEqual(a["disk_reads"], 3 * a["experts_missed"])
        self.refused(2, "is there already; --force replaces it", "pack", "-m", self.model, "-o", self.pack)
        self.assertEqual(mete("pack", "-m", self.model, "-o", self.pack, "--force")[0], 0)

    def test_the_default_name_is_beside_the_model(self):
        self.assertEqual(mete("pack", "-m", self.model)[0], 0)
        self.assertTrue(self.path("moe.gguf.experts").exists())

    def test_goes_on_after_an_interruption(self):
        self.made()
        want = self.pack.read_bytes()
        records = 21
        record = (len(want) - PAGE) // records
        self.pack.unlink()

        def limit():  # the ninth record does not fit: writing fails as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE + 8 * record + 100,) * 2)

        done = subprocess.run([BINARY, "pack", "-m", self.model, "-o", self.pack], capture_output=True, text=True,
                              preexec_fn=limit, restore_signals=False)  # Python ignores SIGXFSZ, so does the child
        self.assertEqual((done.returncode, done.stdout), (1, ""), done.stderr)
        self.assertIn("cannot write: File too large", done.stderr)
        partial = self.path("moe.experts.partial")
        self.assertFalse(self.pack.exists())
        with open(partial, "r+b") as file:  # a kept record is damaged: it is made again
            file.seek(PAGE + 3 * record)
            file.write(b"damage")
        code, out, err = mete("pack", "-m", self.model, "-o", self.pack)
        self.assertEqual(code, 0, err)
        self.assertIn("7 experts of an interrupted run were kept", err)
        self.assertFalse(partial.exists())
        self.assertEqual(self.pack.read_bytes(), want)

    def test_another_files_interrupted_run_is_not_taken_over(self):
        self.path("moe.experts.partial").write_bytes(b"METEPACK" + bytes(100000))
        code, _, err = mete("pack", "-m", self.model, "-o", self.pack)
        self.assertEqual(code, 0, err)
        self.assertNotIn("interrupted", err)
        run = mete_json("run", "-m", self.model, *RUN, "--expert-slots", 2, "--expert-pack", self.pack)
        self.assertEqual(run["logits_hash"], mete_json("run", "-m", self.model, *RUN)["logits_hash"])

    def test_refuses_before_starting_where_the_disk_is_short(self):
        # /proc says that it has no byte left.
        self.refused(1, "bytes, the disk has 0 left", "pack", "-m", self.model, "-o", "/proc/moe.experts")
        disk = self.path("disk")
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", disk], capture_output=True).returncode != 0:
            self.skipTest("a small file system cannot be mounted; /proc was checked")
        try:
            self.refused(1, "bytes, the disk has 131072 left", "pack", "-m", self.model, "-o", disk / "moe.experts")
            self.assertEqual(list(disk.iterdir()), [])
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_models_without_experts_and_files_that_are_no_models(self):
        self.refused(2, "has no routed experts", "pack", "-m", tiny_model(), "-o", self.pack)
        self.refused(1, "no such file", "pack", "-m", self.path("none.gguf"))
        self.refused(1, "cannot examine the disk", "pack", "-m", self.model, "-o", self.path("no/folder"))

    def test_a_pack_that_does_not_fit_is_refused_with_the_command_that_remakes_it(self):
        self.made()
        good = self.pack.read_bytes()
        run = ("run", "-m", self.model, *RUN, "--expert-slots", 2, "--expert-pack", self.pack)
        remake = f"remake it with: mete pack -m {self.model} -o {self.pack} --force"

        def with_bytes(content, fragment, code=3):
            self.pack.write_bytes(content)
            self.assertIn(remake, self.refused(code, fragment, *run))

        with_bytes(good[:8] + struct.pack("<I", 0) + good[12:], "version is 0, expected 1")
        with_bytes(good[:8] + struct.pack("<I", 2) + good[12:], "version is 2, expected 1")
        with_bytes(good[:70] + b"x" + good[71:], "wrong checksum")
        with_bytes(b"GGUF" + good[4:], "not an expert pack")
        with_bytes(b"", "not an expert pack")
        with_bytes(good[:PAGE + 100], "bytes, expected")
        # The pack of a file that was as large: one byte in the middle of an expert's tensor differs.
        other = self.path("other.gguf")
        content = bytearray(self.model.read_bytes())
        tensor = next(t for t in mete_json("inspect", self.model, "--json")["tensors"] if "ffn_down_exps" in t["name"])
        content[tensor["offset"] + tensor["bytes"] // 2] ^= 1
        other.write_bytes(content)
        self.assertEqual(mete("pack", "-m", other, "-o", self.pack, "--force")[0], 0)
        self.assertIn(remake, self.refused(3, f"is the expert pack of another file than {self.model}", *run))
        # An expert's bytes: seen when it is read.
        damaged = bytearray(good)
        for at in range(PAGE, len(good), PAGE):
            damaged[at] ^= 1
        self.pack.write_bytes(damaged)
        code, _, err = mete(*run)
        self.assertEqual(code, 1, err)
        self.assertIn("wrong checksum; " + remake, err)
        # And the command does as it says.
        self.assertEqual(mete("pack", "-m", self.model, "-o", self.pack, "--force")[0], 0)
        self.assertEqual(mete(*run)[0], 0)


def two_layers():
    """A trace of 2 layers, 7 experts, one of them used (src/format/routing_trace.h): one sequence of 40 tokens."""
    trace = b"METETRAC" + struct.pack("<4IQI", 1, 2, 7, 1, PAGE, 1)
    for token in range(40):
        for layer in range(2):
            trace += struct.pack("<3IHf", 2, layer, 1, (token * (layer + 2)) % 7, 1.0)
    return trace


class Replay(WithFolder):
    def trace(self, *args, name="trace", text=TEXT):
        code, out, err = mete("inspect", "-m", self.model, "--routing", self.path(name), "-p", text, *args)
        self.assertEqual(code, 0, err)
        return out

    def counts(self, policy, *args, trace="trace"):
        [row] = mete_json("replay", self.path(trace), "--json", *args)["rows"]
        return row["counts"][policy]

    def live(self, out):
        words = out.split("experts ")[1].replace(",", "").split()
        return {"hits": int(words[0]), "misses": int(words[2]), "guesses": int(words[6]), "useful": int(words[8])}

    def test_predicts_the_live_counts_exactly(self):
        self.trace()
        mete("replay", self.path("trace"), "--train", self.path("rule"))
        for policy in ("lru", "lfu", "lrfu", "classlru", "learned"):
            rule = ("--expert-rule", self.path("rule")) if policy == "learned" else ()
            replayed = ("--rule", self.path("rule")) if policy == "learned" else ()
            for pool, rows, guesses in (("layers", 1, 0), ("layers", 16, 2), ("shared", 1, 2)):
                out = self.trace("--expert-slots", 3, "--expert-policy", policy, "--expert-pool", pool, "--ubatch-size",
                                 rows, "--expert-prefetch", guesses, *rule, name="live")
                live = self.live(out)
                got = self.counts(policy, "--order", "steps", "--slots", 3, "--pool", pool, "--prefetch", guesses,
                                  *replayed, trace="live")
                self.assertEqual({k: got.get(k, 0) for k in live}, live, (policy, pool, rows))
                self.assertGreater(live["hits"], 0)
                self.assertGreater(live["misses"], 0)

    def test_plan_predicts_from_a_trace(self):
        self.trace("--ubatch-size", 16)
        trace = self.path("trace")
        for slots, extra, pool in ((2, (), "layers"), (4, ("--expert-policy", "lru"), "layers"),
                                   (3, ("--expert-pool", "shared"), "shared")):
            plan = ("plan", "-m", self.model, "--expert-slots", slots, *extra)
            even, replayed = mete_json(*plan, "--json"), mete_json(*plan, "--json", "--trace", trace)
            self.assertEqual((even["hit_rate"], even["hit_rate_from"]), (slots / 7, "if routing were even"))
            policy = "lru" if "lru" in extra else "lfu"
            got = self.counts(policy, "--slots", slots, "--pool", pool)
            self.assertEqual(replayed["hit_rate"], got["hits"] / (got["hits"] + got["misses"]))
            self.assertNotEqual(replayed["hit_rate"], even["hit_rate"])
            self.assertIn(f"by the trace with {policy}", replayed["hit_rate_from"])
            self.assertIn(f"by the trace with {policy}", mete(*plan, "--trace", trace)[1])
        self.path("other").write_bytes(two_layers())
        plan = ("plan", "-m", self.model, "--expert-slots", 2, "--trace")
        self.refused(2, "the trace is of 2 layers, 1 of 7 experts, the model has 3 layers, 2 of 7", *plan,
                     self.path("other"))
        self.refused(1, "cannot be opened", *plan, self.path("none"))
        trace.write_bytes(trace.read_bytes()[:-1])
        self.refused(3, str(trace), *plan, trace)
        self.refused(2, "has no routed experts", "plan", "-m", tiny_model(), "--trace", trace)

    def test_table_json_and_curves(self):
        out = self.trace("--ubatch-size", 16)
        self.assertRegex(out, r"^\d+ tokens in 1 windows of 512, 16 rows per step")
        code, out, err = mete("replay", self.path("trace"), "--svg", self.path("curves.svg"))
        self.assertEqual(code, 0, err)
        lines = out.splitlines()
        self.assertEqual(lines[2].split(), ["slots", "c/N", "lru", "lfu", "lrfu", "classlru", "sch(16)", "belady", "bypass"])
        self.assertEqual([line.split()[0] for line in lines[3:10]], [str(n) for n in range(1, 8)])
        j = mete_json("replay", self.path("trace"), "--json")
        self.assertEqual((j["layers"], j["experts"], j["used"]), (3, 7, 2))
        for row in j["rows"]:
            self.assertEqual(row["c/N"], row["slots_per_layer"] / 7)
            self.assertLessEqual(max(row[p] for p in ("lru", "lfu", "lrfu", "classlru", "sch(16)")), row["belady"])
            self.assertLessEqual(row["belady"], row["bypass"])
        for before, after in zip(j["rows"], j["rows"][1:]):
            self.assertLessEqual(before["belady"], after["belady"])
        svg = xml.etree.ElementTree.parse(self.path("curves.svg")).getroot()
        self.assertTrue(svg.tag.endswith("svg"))
        text = " ".join(svg.itertext())
        for name in ("c/N", "lru", "classlru", "belady", "bypass", "slots per layer"):
            self.assertIn(name, text)
        shared = mete_json("replay", self.path("trace"), "--json", "--pool", "shared", "--slots", "2,5")
        self.assertEqual([r["slots_per_layer"] for r in shared["rows"]], [2, 5])

    def test_train_and_rule(self):
        self.trace()
        rule = self.path("rule")
        code, _, err = mete("replay", self.path("trace"), "--train", rule)
        self.assertEqual(code, 0, err)
        self.assertIn(f"rule written to {rule}", err)
        with_rule = mete_json("replay", self.path("trace"), "--json", "--rule", rule)
        without = mete_json("replay", self.path("trace"), "--json")
        for a, b in zip(with_rule["rows"], without["rows"]):
            self.assertGreater(a["learned"], 0)
            self.assertNotIn("learned", b)
            self.assertEqual(a["lfu"], b["lfu"])
        again = self.path("again")
        mete("replay", self.path("trace"), "--train", again)
        self.assertEqual(rule.read_bytes(), again.read_bytes())
        # A rule of another model, and bytes that are none.
        other, other_rule = self.path("other"), self.path("other_rule")
        other.write_bytes(two_layers())
        self.assertEqual(mete("replay", other, "--train", other_rule)[0], 0)
        self.refused(3, "a rule for 3 layers, the trace has 2", "replay", other, "--rule", rule)
        run = ("run", "-m", self.model, *RUN, "--expert-slots", 2, "--expert-policy", "learned")
        self.refused(3, "a rule for 2 layers, the model has 3", *run, "--expert-rule", other_rule)
        self.refused(2, "needs a rule", *run)
        rule.write_bytes(rule.read_bytes()[:-1])
        self.refused(3, str(rule), "replay", self.path("trace"), "--rule", rule)

    def test_bad_traces(self):
        self.trace()
        trace = self.path("trace")
        good = trace.read_bytes()
        for content, fragment in ((b"", "METETRAC"), (b"GGUF" + good[4:], "METETRAC"),
                                  (good[:8] + struct.pack("<I", 9) + good[12:], "version is 9, expected 1"),
                                  (good[:-1], "record"), (good[:32] + struct.pack("<I", 77) + good[36:], "record"),
                                  (good[:32], "holds no visits")):
            trace.write_bytes(content)
            self.assertIn(str(trace), self.refused(3, fragment, "replay", trace))
        trace.write_bytes(good)
        self.refused(1, "cannot be opened", "replay", self.path("none"))
        self.refused(2, "found 9, expected 1 to 7", "replay", trace, "--slots", 9)
        self.refused(2, "--prefetch has no effect without --order steps", "replay", trace, "--prefetch", 2)
        self.refused(1, "cannot write", "replay", trace, "--svg", self.path("no/folder.svg"))

    def test_routing_options(self):
        out = self.path("trace")
        self.refused(2, "expected a text, -p or -f", "inspect", "-m", self.model, "--routing", out)
        self.refused(2, "the text is empty", "inspect", "-m", self.model, "--routing", out, "-f", os.devnull)
        self.refused(2, "has no effect without --routing", "inspect", "-m", self.model, "-p", "x")
        self.refused(1, str(self.path("no/folder")), "inspect", "-m", self.model, "--routing", self.path("no/folder"),
                     "-p", "x")
        self.refused(2, "routed experts", "inspect", "-m", tiny_model(), "--routing", out, "-p", "x")

    @unittest.skipUnless(SMOLMOE.exists(), f"{SMOLMOE.name} is not in the model folder")
    def test_predicts_a_real_model(self):
        self.model = SMOLMOE
        live = self.live(self.trace("--expert-slots", 8, "--expert-prefetch", 0, "--ubatch-size", 1, "--tokens", 48))
        got = self.counts("lfu", "--order", "steps", "--slots", 8)
        self.assertEqual((got["hits"], got["misses"]), (live["hits"], live["misses"]))
        # A step of one token is a token.
        tokens = self.counts("lfu", "--slots", 8)
        self.assertEqual((tokens["hits"], tokens["misses"]), (live["hits"], live["misses"]))


# Reads fail while a file of this name is there.
VANISHING_DRIVE = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static ssize_t read_at(const char* name, int fd, void* out, size_t bytes, long offset) {
  if (access(getenv("DRIVE_IS_GONE"), F_OK) == 0) {
    errno = EIO;
    return -1;
  }
  return ((ssize_t(*)(int, void*, size_t, long))dlsym(RTLD_NEXT, name))(fd, out, bytes, offset);
}
ssize_t pread(int fd, void* out, size_t bytes, off_t offset) { return read_at("pread", fd, out, bytes, offset); }
ssize_t pread64(int fd, void* out, size_t bytes, long offset) { return read_at("pread64", fd, out, bytes, offset); }
"""


class FilesThatChange(WithFolder):
    BODY = {"prompt": "hello there", "max_tokens": 4, "temperature": 0, "ignore_eos": True}

    def test_a_request_is_refused_and_the_server_lives(self):
        self.made()
        for extra, path in ((), self.model), (("--expert-pack", self.pack), self.pack):
            with Server("-c", 256, "--expert-slots", 2, *extra, model=self.model) as server:
                want = server.ok("/v1/completions", self.BODY)["choices"]
                times = path.stat()
                os.utime(path)
                status, answer = server.post("/v1/completions", self.BODY)
                self.assertGreaterEqual(status, 400)
                self.assertIn("the file was written to while in use", json.dumps(answer))
                self.assertIn(path.name, json.dumps(answer))
                content = path.read_bytes()
                with open(path, "ab") as file:
                    file.write(b"more")
                status, answer = server.post("/v1/completions", self.BODY)
                self.assertGreaterEqual(status, 400)
                self.assertIn(f"{len(content) + 4} bytes, expected {len(content)}", json.dumps(answer))
                self.assertEqual(server.get("/health")[0], 200)
                os.truncate(path, len(content))
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
                self.assertEqual(server.ok("/v1/completions", self.BODY)["choices"], want)

    def test_a_drive_that_vanishes_ends_requests_and_comes_back(self):
        source, library, gone = self.path("drive.c"), self.path("drive.so"), self.path("gone")
        source.write_text(VANISHING_DRIVE)
        compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        if compiler is None:
            self.skipTest("no C compiler for a drive that fails")
        subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
        with unittest.mock.patch.dict(os.environ, {"LD_PRELOAD": str(library), "DRIVE_IS_GONE": str(gone)}):
            server = Server("-c", 256, "--expert-slots", 1, "--expert-io", "threads", model=self.model)
        with server:
            want = server.ok("/v1/completions", self.BODY)["choices"]
            gone.touch()
            for _ in range(2):
                status, answer = server.post("/v1/completions", self.BODY)
                self.assertGreaterEqual(status, 400)
                self.assertRegex(json.dumps(answer), "cannot read expert .*Input/output error")
            self.assertEqual(server.get("/health")[0], 200)
            gone.unlink()
            self.assertEqual(server.ok("/v1/completions", self.BODY)["choices"], want)

    def test_a_model_that_is_all_in_memory_does_not_mind(self):
        with Server("-c", 256, model=self.model) as server:
            want = server.ok("/v1/completions", self.BODY)["choices"]
            self.model.write_bytes(b"gone")
            self.assertEqual(server.ok("/v1/completions", self.BODY)["choices"], want)


if __name__ == "__main__":
    unittest.main()
