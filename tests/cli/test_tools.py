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
        code, out, _ = mete(*args, "-o", "csv")
        table = list(csv.DictReader(io.StringIO(out)))
        self.assertEqual((code, len(table)), (0, 8))
        code, out, _ = mete(*args)
        self.assertEqual(code, 0)
        self.assertIn("pp8+tg4 @ d8", out)

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
