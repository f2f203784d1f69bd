"""`--memory`: the ceiling of the whole process. bench/ceiling_check.py checks it in a memory cgroup."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "bench"))

import ceiling_check  # noqa: E402
from harness import BINARY, MODELS, SMOLLM2, TemporaryDirectory, mete, mete_json, needs_smollm2, tiny_model  # noqa: E402

MIB = 1 << 20


def wait_for(test, run, fragment):
    """Reads what the running command says until a line holds the fragment."""
    said = []
    for line in run.stderr:
        said.append(line)
        if fragment in line:
            return
    test.fail(f"{fragment!r} not found in {said}")


UNTIED = MODELS / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"  # its output matrix is not its embedding table
SMOLMOE = MODELS / "smolmoe-268m-a81m-q4_0.gguf"
RAW = ("-p", "The capital of France is", "-no-cnv", "-n", 8, "--temp", 0, "--json")


COMMANDS = (("run", *RAW), ("bench", "-p", 8, "-n", 4), ("plan",), ("serve", "--port", 0),
            ("eval", "-f", __file__, "-c", 64, "--chunks", 1))


class Usage(unittest.TestCase):
    def test_sizes_that_cannot_be(self):
        for size, fragment in (("lots", "found 'lots', expected a size"), ("0", "found '0'"),
                               ("500TiB", "larger than this machine's memory")):
            for command in COMMANDS:
                code, out, err = mete(command[0], "-m", tiny_model(), "--memory", size, *command[1:])
                self.assertEqual((code, out), (2, ""), err)
                self.assertIn(fragment, err)
                self.assertEqual(err.count("\n"), 1, err)

    def test_below_the_floor(self):
        for command in COMMANDS:
            code, out, err = mete(command[0], "-m", tiny_model(), "--memory", "2MiB", *command[1:])
            self.assertEqual((code, out), (4, ""), err)
            self.assertRegex(err, r"below the floor of \d+\.\d MiB")

    def test_auto_follows_the_cgroup(self):
        try:
            group = ceiling_check.Group(300 * MIB)
        except OSError as error:
            self.skipTest(str(error))
        plan = (BINARY, "plan", "-m", tiny_model(), "--memory", "auto", "--json")
        with group:
            inside = subprocess.run(plan, capture_output=True, preexec_fn=group.enter, check=True)
        budget = json.loads(inside.stdout)["memory_budget_bytes"]
        self.assertLessEqual(budget, (300 - 64) * MIB)
        self.assertGreater(budget, 200 * MIB)

    def test_commands_where_it_has_no_effect_refuse_it(self):
        for command in (("tokenize", "-p", "x"), ("inspect",)):
            code, _, err = mete(command[0], "-m", tiny_model(), "--memory", "1GiB", *command[1:])
            self.assertEqual(code, 2, err)

    def test_memory_file_that_is_not_there(self):
        code, _, err = mete("run", "-m", tiny_model(), "--memory-file", "/no/such/file", *RAW)
        self.assertEqual(code, 1)
        self.assertIn("/no/such/file", err)


@needs_smollm2
class Ceiling(unittest.TestCase):
    def run_json(self, *args):
        return mete_json("run", "-m", SMOLLM2, "-c", 512, *RAW, *args)

    def test_lines_and_same_bits_under_every_ceiling(self):
        free = self.run_json()
        roomy = self.run_json("--memory", "1GiB")["receipt"]
        self.assertNotIn("memory_budget_bytes", free["receipt"])
        self.assertEqual(roomy["memory_budget_bytes"], 1 << 30)
        floor = roomy["memory_floor_bytes"]
        for budget in (floor, floor + 8 * MIB, floor + 64 * MIB):
            out = self.run_json("--memory", budget)
            self.assertEqual(out["logits_hash"], free["logits_hash"])
            receipt = out["receipt"]
            self.assertLessEqual(receipt["memory_peak_bytes"], budget)
            self.assertLessEqual(receipt["unnamed_bytes"], 16 * MIB)
            planned = sum(line["planned"] for line in receipt["memory_lines"].values())
            self.assertLessEqual(planned, budget)
            for name in ("weights", "kv", "activations", "logits", "text", "stacks", "malloc", "page_tables", "binary"):
                self.assertIn(name, receipt["memory_lines"])
        code, _, err = mete("run", "-m", SMOLLM2, "-c", 512, *RAW, "--memory", floor - 1)
        self.assertEqual(code, 4, err)

    def test_what_is_made_smaller_is_said(self):
        floor = self.run_json("--memory", "1GiB")["receipt"]["memory_floor_bytes"]
        code, _, err = mete("run", "-m", SMOLLM2, "-c", 512, *RAW, "--memory", floor)
        self.assertEqual(code, 0, err)
        self.assertIn("steps of 8 instead of 512 rows", err)
        code, _, err = mete("run", "-m", SMOLLM2, *RAW, "--memory", floor + 16 * MIB)
        self.assertEqual(code, 0, err)
        self.assertRegex(err, r"context \d+ instead of \d+ tokens")

    def test_nothing_of_the_file_stays_in_the_page_cache(self):
        with TemporaryDirectory(dir=".") as folder:  # a copy: others may be reading the original
            path = pathlib.Path(folder, "copy.gguf")
            path.write_bytes(SMOLLM2.read_bytes())
            fd = os.open(path, os.O_RDWR)
            os.fsync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
            run = lambda *args: mete_json("run", "-m", path, "-c", 512, *RAW, *args)["receipt"]["memory_lines"]
            self.assertEqual(run("--memory", "1GiB").get("page_cache", {"used": 0})["used"], 0)
            self.assertGreater(run()["page_cache"]["used"], 80 * MIB)  # without a ceiling the kernel may keep it

    def test_sigusr1_rereads_the_file_and_a_value_below_the_floor_is_refused(self):
        want = mete_json("run", "-m", SMOLLM2, "-c", 2048, "-p", "1 2 3", "-no-cnv", "-n", 400, "--ignore-eos", "--temp",
                         0, "--json")["logits_hash"]
        with TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "ceiling")
            path.write_text("1GiB\n")
            run = subprocess.Popen([BINARY, "run", "-m", str(SMOLLM2), "-c", "2048", "-p", "1 2 3", "-no-cnv", "-n",
                                    "400", "--ignore-eos", "--temp", "0", "--json", "--memory-file", str(path)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            wait_for(self, run, "ceiling 1024.0 MiB")
            for size, fragment in (("512MiB", "the ceiling is now 512.0 MiB (was 1024.0 MiB)"),
                                   ("16MiB", "the ceiling stays 512.0 MiB: 16.0 MiB is below the floor of"),
                                   ("much", "the ceiling stays 512.0 MiB")):
                path.write_text(size)
                run.send_signal(signal.SIGUSR1)
                wait_for(self, run, fragment)
            out, _ = run.communicate(timeout=120)
            self.assertEqual(run.returncode, 0)
            out = json.loads(out)
            self.assertEqual(out["receipt"]["memory_budget_bytes"], 512 * MIB)
            self.assertEqual(out["logits_hash"], want)

    def test_in_a_memory_cgroup(self):
        script = pathlib.Path(__file__).parents[2] / "bench/ceiling_check.py"
        done = subprocess.run([sys.executable, script, "-m", SMOLLM2, "--text", __file__, "-c", "256", "--ceilings", "2",
                               "--mete", BINARY], capture_output=True, text=True)
        if done.returncode == 77:
            self.skipTest(done.stdout.strip())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


@unittest.skipUnless(SMOLMOE.exists(), f"{SMOLMOE.name} is not in the model folder")
class Experts(unittest.TestCase):
    BASE = ("run", "-m", SMOLMOE, "-c", 1024, "-p", "The capital of France is", "-no-cnv", "--ignore-eos", "--temp", 0,
            "--json")

    def test_slots_follow_the_ceiling_and_bits_stay(self):
        free = mete_json(*self.BASE, "-n", 8)
        self.assertNotIn("experts", free["receipt"])
        slots = []
        for ceiling in (107, 118, 150):
            out = mete_json(*self.BASE, "-n", 8, "--memory", f"{ceiling}MiB")
            self.assertEqual(out["logits_hash"], free["logits_hash"])
            receipt = out["receipt"]
            self.assertLessEqual(receipt["memory_peak_bytes"], ceiling * MIB)
            self.assertLessEqual(receipt["unnamed_bytes"], 16 * MIB)
            self.assertGreater(receipt["experts"]["experts_missed"], 0)
            self.assertGreater(receipt["experts"]["disk_bytes"], 0)
            slots.append(receipt["experts"]["slots_per_layer"])
            planned, used = (receipt["memory_lines"]["activations"][k] for k in ("planned", "used"))
            self.assertLessEqual(used, planned)
        self.assertLess(slots[0], slots[1])
        self.assertLess(slots[1], slots[2])
        self.assertLess(slots[2], 32)

    def test_ceiling_changes_while_running(self):
        want = mete_json(*self.BASE, "-n", 48)["logits_hash"]
        with TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "ceiling")
            path.write_text("150MiB")
            run = subprocess.Popen([BINARY, *map(str, self.BASE), "-n", "48", "--memory-file", str(path)],
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            wait_for(self, run, "of 32 experts")
            for size, fragment in (("118MiB", "is now 118.0 MiB"), ("220MiB", "is now 220.0 MiB"),
                                   ("50MiB", "stays 220.0 MiB: 50.0 MiB is below the floor")):
                path.write_text(size)
                run.send_signal(signal.SIGUSR1)
                wait_for(self, run, fragment)
            out, err = run.communicate(timeout=300)
            self.assertEqual(run.returncode, 0, err)
            self.assertEqual(json.loads(out)["logits_hash"], want)

    def test_a_long_step_takes_the_activations_that_were_planned(self):
        for rows in (32, 256):
            receipt = mete_json("run", "-m", SMOLMOE, "-c", 512, "-p", "one two three " * 100, "-no-cnv", "-n", 2, "--json",
                                "-ub", rows)["receipt"]
            planned, used = (receipt["memory_lines"]["activations"][k] for k in ("planned", "used"))
            self.assertLessEqual(used, planned)
            self.assertGreater(used, 0.4 * planned)  # attention's part is planned for the whole context
            self.assertLessEqual(abs(receipt["unnamed_bytes"]), 4 * MIB)

    def test_serve_in_a_memory_cgroup(self):
        script = pathlib.Path(__file__).parents[2] / "bench/ceiling_serve.py"
        done = subprocess.run([sys.executable, script, "-m", SMOLMOE, "--text", __file__, "-c", "256", "--ceilings", "1",
                               "--requests", "8", "--mete", BINARY], capture_output=True, text=True)
        if done.returncode == 77:
            self.skipTest(done.stdout.strip())
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_plan(self):
        plan = mete_json("plan", "-m", SMOLMOE, "-c", 1024, "--memory", "112MiB", "--json")
        receipt = mete_json(*self.BASE, "-n", 2, "--memory", "112MiB")["receipt"]
        self.assertEqual(plan["slots_per_layer"], receipt["experts"]["slots_per_layer"])
        # The run plans for its prompt too.
        self.assertAlmostEqual(plan["memory_floor_bytes"], receipt["memory_floor_bytes"], delta=4096)
        self.assertLessEqual(plan["memory_planned_bytes"], 112 * MIB)
        self.assertAlmostEqual(plan["hit_rate"], plan["slots_per_layer"] / 32)
        self.assertGreater(plan["decode_tokens_per_s"], 0)
        code, out, err = mete("plan", "-m", SMOLMOE, "-c", 1024, "--memory", plan["memory_floor_bytes"] - 1)
        self.assertEqual((code, out), (4, ""), err)
        self.assertIn("below the floor", err)


class Embeddings(unittest.TestCase):
    def test_a_model_without_such_a_table_says_so(self):
        code, out, err = mete("run", "-m", tiny_model(), "--embeddings", "disk", *RAW)
        self.assertEqual((code, out), (2, ""), err)
        self.assertIn("--embeddings disk: the model has no table that could stay on the drive", err)
        code, _, err = mete("run", "-m", tiny_model(), "--embeddings", "cloud", *RAW)
        self.assertEqual(code, 2, err)

    @unittest.skipUnless(UNTIED.exists(), f"{UNTIED.name} is not in the model folder")
    def test_rows_are_read_below_the_resident_floor(self):
        base = ("run", "-m", UNTIED, "-c", 512, *RAW)
        free = mete_json(*base)
        self.assertNotIn("embeddings", free["receipt"])
        forced = mete_json(*base, "--embeddings", "disk")
        self.assertEqual(forced["logits_hash"], free["logits_hash"])

        def plan(*args):
            return mete_json("plan", "-m", UNTIED, "-c", 512, "--json", *args)

        roomy = plan("--memory", "1GiB")
        self.assertNotIn("embeddings", roomy["memory_lines"])
        floor = roomy["memory_floor_bytes"]
        in_memory = plan("--memory", "1GiB", "--embeddings", "memory")["memory_floor_bytes"]
        self.assertGreater(in_memory - floor, 80 * MIB)  # the table has 90 MiB
        between = (floor + in_memory) // 2
        self.assertIn("embeddings", plan("--memory", between)["memory_lines"])
        code, _, err = mete("plan", "-m", UNTIED, "-c", 512, "--memory", between, "--embeddings", "memory")
        self.assertEqual(code, 4, err)
        for budget in (floor + MIB, between):
            code, out, err = mete(*base, "--memory", budget)
            self.assertEqual(code, 0, err)
            self.assertRegex(err, r"token_embd.weight \(8\d.\d MiB\) stays on the drive")
            out = json.loads(out)
            self.assertEqual(out["logits_hash"], free["logits_hash"])
            receipt = out["receipt"]
            self.assertLessEqual(receipt["memory_peak_bytes"], budget)
            self.assertLessEqual(receipt["unnamed_bytes"], 16 * MIB)
            line = receipt["memory_lines"]["embeddings"]
            self.assertTrue(0 < line["used"] <= line["planned"], line)
            rows = receipt["embeddings"]
            self.assertEqual(rows["tables"], ["token_embd.weight"])
            self.assertGreater(rows["rows_missed"], 5)
            self.assertGreaterEqual(rows["disk_bytes"], 4096 * 5)
            self.assertGreater(rows["disk_reads"], 0)
        code, _, err = mete(*base, "--memory", floor - 8192)
        self.assertEqual(code, 4, err)
        code, _, err = mete(*base[:-1], "--memory", between, "--receipt")
        self.assertIn("embeddings on the drive:", err)


if __name__ == "__main__":
    unittest.main()
