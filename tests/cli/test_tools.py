"""`mete bench`, `eval`, `tokenize` and `inspect` as a user sees them."""
import csv
import io
import json
import os
import unittest

from harness import SMOLLM2, TemporaryDirectory, mete, mete_json, needs_smollm2, tiny_model


class Tiny(unittest.TestCase):
    def test_bench_rows_and_formats(self):
        args = ("bench", "-m", tiny_model(), "-p", "16,24", "-n", 4, "-pg", "8,4", "-d", "0,8", "-r", 2, "-t", 1)
        rows = mete_json(*args, "-o", "json")
        tests = [(r["n_prompt"], r["n_gen"], r["n_depth"]) for r in rows]
        one = lambda d: [(16, 0, d), (24, 0, d), (0, 4, d), (8, 4, d)]
        self.assertEqual(tests, one(0) + one(8))
        for row in rows:
            self.assertEqual(len(row["samples_ts"]), 2)
            self.assertAlmostEqual(row["avg_ts"], sum(row["samples_ts"]) / 2, delta=row["avg_ts"] * 1e-6)
            self.assertGreater(row["machine_read_bytes_per_s"], 0)
            self.assertGreater(row["share_of_limit"], 0)
            self.assertTrue(row["q1_ts"] <= row["median_ts"] <= row["q3_ts"])
            self.assertEqual(row["ttft_s"] is None, row["n_prompt"] == 0)
            self.assertRegex(row["model_hash"], r"^xxh3:[0-9a-f]{16}$")
            parts = sum(part["s"] for part in row["ledger"]["parts"].values())
            self.assertAlmostEqual(parts, sum(row["samples_ns"]) * 1e-9, delta=0.03 * parts + 1e-4)
        code, out, _ = mete(*args, "-o", "csv")
        table = list(csv.DictReader(io.StringIO(out)))
        self.assertEqual((code, len(table)), (0, 8))
        code, out, _ = mete(*args)
        self.assertEqual(code, 0)
        self.assertIn("pp8+tg4 @ d8", out)

    def test_bench_sequences_text_lines_and_loading(self):
        with TemporaryDirectory() as folder:
            text = os.path.join(folder, "text.txt")
            with open(text, "w") as file:
                file.write("one two three four five six seven ")
            code, out, err = mete("bench", "-m", tiny_model(), "-p", 8, "-n", 4, "-np", "1,3", "-r", 2, "-t", 1,
                                  "--text", text, "--load", "-o", "jsonl")
            self.assertEqual(code, 0, err)
            rows = [json.loads(line) for line in out.splitlines()]
            self.assertEqual([r["test"] for r in rows],
                             ["load, cold page cache", "load, warm page cache", "pp8", "tg4", "pp8 x3", "tg4 x3"])
            self.assertTrue(rows[0]["note"] or rows[0]["load_s"] > 0)
            self.assertGreater(rows[1]["load_s"], 0)
            for row, counted in zip(rows[2:], (8, 4, 24, 12)):
                self.assertEqual(row["ledger"]["rows"], 2 * counted)
            # Weights are read once for all sequences of a step.
            self.assertLess(rows[5]["read_bytes_per_token"], 0.5 * rows[3]["read_bytes_per_token"])

    def test_bench_compares_with_an_earlier_run(self):
        with TemporaryDirectory() as folder:
            args = ("bench", "-m", tiny_model(), "-p", 0, "-n", 4, "-r", 3, "-t", 1)
            rows = mete_json(*args, "-o", "json")
            path = os.path.join(folder, "then.json")
            rows[0]["samples_ts"] = [1.0, 1.0, 1.0]
            rows[0]["cpu_info"] = "another"
            with open(path, "w") as file:
                json.dump(rows, file)
            code, out, err = mete(*args, "--compare", path)
            self.assertEqual(code, 0, err)
            self.assertIn("faster", out)
            self.assertIn("cpu_info differs", out)
            for content, fragment in (("{}", "not an array"), ("[]", "no row of the same test"),
                                      ('[{"n_gen": 5}]', "no row of the same test"), ("nonsense", "not an array")):
                with open(path, "w") as file:
                    file.write(content)
                code, _, err = mete(*args, "--compare", path)
                self.assertEqual(code, 1)
                self.assertIn(fragment, err)

    def test_bench_refuses_what_has_no_effect_or_no_sense(self):
        with TemporaryDirectory() as folder:
            empty = os.path.join(folder, "empty.txt")
            open(empty, "w").close()
            model = ("-m", tiny_model())
            for args, fragment in ((("-p", 8), "-m is required"), ((*model, "--fresh"), "--fresh has no effect"),
                                   (("--machine", "-p", 8), "has no effect with --machine"),
                                   (("--machine", "-o", "csv"), "-o is md or json"),
                                   ((*model, "-np", 0), "expected integers of 1"),
                                   ((*model, "-p", 0, "-n", 0), "nothing to measure"),
                                   ((*model, "-p", "8,x"), "expected integers"),
                                   ((*model, "-pg", "8"), "expected PROMPT,GEN"),
                                   ((*model, "-p", 4, "-n", 0, "-r", 1, "--text", empty), "the file is empty")):
                code, out, err = mete("bench", *args)
                self.assertEqual((code, out), (2, ""), args)
                self.assertIn(fragment, err)

    def test_machine_profile_is_kept_and_refused_on_another_machine(self):
        with TemporaryDirectory() as folder:
            env = {"XDG_CACHE_HOME": folder}
            first = json.loads(mete("bench", "--machine", "-o", "json", env=env)[1])
            self.assertEqual(first["threads"][0]["threads"], 1)
            self.assertGreater(first["threads"][0]["read_bytes_per_s"]["median"], 0)
            self.assertTrue({c["source"] for c in first["caches"]} <= {"reported", "measured"})
            self.assertTrue(all("reason" in p for p in first["power"]))
            code, out, _ = mete("bench", "--machine", env=env)
            self.assertEqual(code, 0)
            self.assertIn("Drive: not measured", out)
            self.assertEqual(json.loads(mete("bench", "--machine", "-o", "json", env=env)[1]), first)
            path = os.path.join(folder, "mete", "machine.json")
            first["host"] = "another"
            with open(path, "w") as file:
                json.dump(first, file)
            code, out, err = mete("bench", "--machine", env=env)
            self.assertEqual((code, out), (1, ""))
            self.assertIn("another machine", err)

    def test_eval_refuses_what_cannot_be_scored(self):
        with TemporaryDirectory() as folder:
            path = os.path.join(folder, "text.txt")
            for text, fragment in (("", "is empty"), ("short", "fewer than one window")):
                with open(path, "w") as file:
                    file.write(text)
                code, out, err = mete("eval", "-m", tiny_model(), "-f", path, "-c", 64, "--json")
                self.assertEqual((code, out), (2, ""))
                self.assertIn(fragment, err)
        code, _, err = mete("eval", "-m", tiny_model(), "-f", "/nonexistent.txt")
        self.assertEqual(code, 1)
        self.assertIn("/nonexistent.txt", err)

    def test_inspect(self):
        code, out, err = mete("inspect", tiny_model())
        self.assertEqual((code, err), (0, ""))
        self.assertIn("general.architecture", out)
        self.assertIn("token_embd.weight", out)
        json.loads(mete("inspect", tiny_model(), "--json")[1])
        code, out, _ = mete("inspect", "--print-cpu")
        self.assertEqual(code, 0)
        for tier in ("generic", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16"):
            self.assertIn(tier, out)


@needs_smollm2
class Real(unittest.TestCase):
    def test_tokenize(self):
        j = mete_json("tokenize", "-m", SMOLLM2, "-p", "Hello world", "--json")
        self.assertEqual(j["count"], len(j["tokens"]))
        self.assertEqual("".join(j["pieces"]), "Hello world")
        code, out, _ = mete("tokenize", "-m", SMOLLM2, "--ids", stdin=b"Hello world")
        self.assertEqual((code, json.loads(out)), (0, j["tokens"]))

    def test_perplexity_is_the_same_for_every_chunking_and_thread_count(self):
        data = os.environ.get("METE_DATA_DIR")
        if not data or not os.path.exists(os.path.join(data, "wikitext2-valid.txt")):
            self.skipTest("wikitext2-valid.txt is not in the data folder")
        base = ("eval", "-m", SMOLLM2, "-f", os.path.join(data, "wikitext2-valid.txt"), "-c", 512, "--chunks", 1,
                "--json")
        first = mete_json(*base)
        self.assertEqual(first["tokens"], 255)
        for extra in (("-t", 1), ("-ub", 64), ("-ub", 5)):
            self.assertEqual(mete_json(*base, *extra)["ppl"], first["ppl"], extra)


if __name__ == "__main__":
    unittest.main()
