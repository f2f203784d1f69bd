"""`mete eval` as a user sees it: references, tasks, price lists, and what it refuses."""
import json
import os
import unittest
import xml.etree.ElementTree

from harness import SMOLLM2, TemporaryDirectory, mete, mete_json, needs_smollm2, tiny_model

TEXT = " ".join(f"word{i * 7919 % 1000} and more." for i in range(600))


class WithFolder(unittest.TestCase):
    def setUp(self):
        self.folder = TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.text = self.write("text.txt", TEXT)
        self.base = ("eval", "-m", tiny_model(), "-f", self.text, "-c", 64, "--chunks", 3, "-t", 1)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def write(self, name, text):
        with open(self.path(name), "w") as file:
            file.write(text)
        return self.path(name)

    def refused(self, fragment, *args, code=2, **kwargs):
        found, out, err = mete(*args, **kwargs)
        self.assertEqual((found, out), (code, ""), err)
        self.assertIn(fragment, err)
        self.assertEqual(err.count("\n"), 1, err)


class References(WithFolder):
    def test_a_run_has_no_distance_to_itself(self):
        full, compact = self.path("full"), self.path("compact")
        first = mete_json(*self.base, "--json", "--save-logits", full)
        mete_json(*self.base, "--json", "--save-logits", compact, "--compact", 9)
        for reference in (full, tiny_model()):
            j = mete_json(*self.base, "--json", "-ub", 7, "--reference", reference)
            self.assertEqual([j[k] for k in ("kl_mean", "kl_p99", "kl_max", "same_top1")], [0, 0, 0, 1])
            self.assertEqual((j["ppl"], j["reference_ppl"]), (first["ppl"], first["ppl"]))
            self.assertEqual(sum(r["tokens"] for r in j["by_position"]), j["tokens"])
        j = mete_json(*self.base, "--json", "--reference", compact)
        self.assertEqual((j["kl_lower_bound"], j["reference_compact"]), (0, 9))
        self.assertNotIn("kl_mean", j)
        self.assertGreater(j["mass_outside_mean"], 0)

    def test_lossy_settings_have_a_price_and_the_compact_form_bounds_it(self):
        full, compact = self.path("full"), self.path("compact")
        mete_json(*self.base, "--json", "--numerics", "reference", "--save-logits", full)
        mete_json(*self.base, "--json", "--numerics", "reference", "--save-logits", compact, "--compact", 30)
        exact = mete_json(*self.base, "--json", "--numerics", "reference", "--reference", "self")
        self.assertEqual(exact["kl_max"], 0)
        for codec in ("f16", "q8_0"):
            codecs = ("-ctk", codec, "-ctv", codec, "--json")
            beside = mete_json(*self.base, *codecs, "--reference", "self")
            stored = mete_json(*self.base, *codecs, "--reference", full)
            self.assertGreater(beside["kl_mean"], 0)
            self.assertEqual(beside["kl_mean"], stored["kl_mean"])
            bound = mete_json(*self.base, *codecs, "--reference", compact)
            self.assertLessEqual(bound["kl_lower_bound"], stored["kl_mean"])
        code, out, _ = mete(*self.base, "--reference", compact)
        self.assertEqual(code, 0)
        self.assertIn("KL lower bound", out)
        self.assertIn("mass outside", out)

    def test_bad_input_is_refused(self):
        full = self.path("full")
        mete_json(*self.base, "--json", "--save-logits", full)
        other = self.write("other.txt", "x" + TEXT)
        head = self.base[:3]
        self.refused("nothing to do", *head)
        self.refused("another tokenizer or text", *head, "-f", other, "-c", 64, "--chunks", 3, "--reference", full)
        self.refused("3 windows of 64", *head, "-f", self.text, "-c", 64, "--chunks", 2, "--reference", full)
        self.refused("--compact has no effect", *self.base, "--compact", 5)
        self.refused("--reference-numerics has no effect", *self.base, "--reference-numerics", "standard")
        self.refused("--reference-numerics has no effect", *self.base, "--reference-numerics", "reference",
                     "--reference", full)
        self.refused("-m is missing", "eval", "-f", self.text)
        self.refused("no such file, here or in the data folder", *head, "-f", "none.txt", code=1,
                     env={"METE_DATA_DIR": self.folder.name})
        self.refused("cannot be created", *self.base, "--save-logits", self.path("no/folder/file"), code=1)

    @needs_smollm2
    def test_a_model_with_another_tokenizer_is_refused(self):
        self.refused("a reference of another tokenizer: 49152", *self.base, "--reference", SMOLLM2)


class Tasks(WithFolder):
    def test_needles_and_recall(self):
        args = ("eval", "-m", tiny_model(), "--tasks", "needle,multikey,recall", "--haystack", self.text, "--samples", 3,
                "--task-tokens", 600, "--task-ctx", 650, "--depths", "0,1", "-t", 1, "--json")
        first = mete_json(*args)
        self.assertEqual([t["task"] for t in first["tasks"]], ["needle", "multikey", "recall"])
        for task in first["tasks"]:
            self.assertEqual(task["samples"], 3)
            self.assertLessEqual(task["prompt_tokens_mean"], 600)
            self.assertEqual(task["groups"]["depth 0.00"]["samples"], 2)
        # Everything but the times is the same again.
        same = [[(k, v) for k, v in t.items() if "per_s" not in k] for t in first["tasks"]]
        again = [[(k, v) for k, v in t.items() if "per_s" not in k] for t in mete_json(*args)["tasks"]]
        self.assertEqual(same, again)

    def test_what_cannot_be_asked_is_refused(self):
        head = ("eval", "-m", tiny_model(), "--tasks")
        self.refused("found 'needles'", *head, "needles")
        self.refused("--allow-code-execution is needed", *head, "humaneval")
        self.refused("--allow-code-execution has no effect", *head, "recall", "--allow-code-execution")
        self.refused("--seed has no effect", "eval", "-m", tiny_model(), "-f", self.text, "--seed", 1)
        self.refused("--chunks has no effect", *head, "recall", "--chunks", 1)
        self.refused("too short for prompts", *head, "needle", "--haystack", self.text, "--task-tokens", 100000)
        self.refused("do not fit the context", *head, "recall", "--task-tokens", 200, "--task-ctx", 50)
        self.refused("no such file", *head, "gsm8k", "--data", self.folder.name, code=1)
        self.write("gsm8k-test.jsonl", "{\"question\": 1}\n")
        self.refused("line 1: no text in the field 'question'", *head, "gsm8k", "--data", self.folder.name)

    def test_data_sets(self):
        self.write("gsm8k-test.jsonl", json.dumps({"question": "1 + 1?", "answer": "so #### 2"}) + "\n")
        self.write("specbench.jsonl", json.dumps({"category": "c", "turns": ["Hello"]}) + "\n")
        j = mete_json("eval", "-m", tiny_model(), "--tasks", "gsm8k,specbench", "--samples", -1, "--task-ctx", 500,
                      "--data", self.folder.name, "-t", 1, "--json")
        gsm8k, specbench = j["tasks"]
        self.assertIn("score", gsm8k)
        self.assertNotIn("score", specbench)
        self.assertGreater(specbench["answer_tokens_mean"], 0)


SWEEP = """
file = "text.txt"
ctx-size = 64
chunks = 2
threads = 1
reference = "self"
tasks = ["recall"]
samples = 2
task-tokens = 150
task-ctx = 200
[[setting]]
name = "f16"
[[setting]]
name = "exact"
numerics = "reference"
[[setting]]
name = "q8_0"
cache-type-k = "q8_0"
cache-type-v = "q8_0"
"""


class Sweeps(WithFolder):
    def sweep(self, text, *args):
        return ("eval", "--sweep", self.write("s.toml", text), "--data", self.folder.name, *args)

    def test_price_list(self):
        svg, temporary = self.path("out.svg"), self.path("tmp")
        os.mkdir(temporary)
        j = mete_json(*self.sweep(SWEEP, "-m", tiny_model(), "--json", "--svg", svg),
                      env={"TMPDIR": temporary})
        self.assertEqual(os.listdir(temporary), [])
        settings = {s["name"]: s for s in j["settings"]}
        self.assertEqual(sorted(s["bytes"] for s in j["settings"]), [s["bytes"] for s in j["settings"]])
        self.assertEqual(settings["exact"]["kl_max"], 0)
        self.assertGreater(settings["q8_0"]["kl_mean"], 0)
        self.assertLess(settings["q8_0"]["bytes"], settings["f16"]["bytes"])
        self.assertIsNone(settings["q8_0"]["dominated_by"])
        for s in j["settings"]:
            self.assertGreater(s["decode_tokens_per_s"], 0)
            self.assertEqual(s["tasks"][0]["task"], "recall")
        xml.etree.ElementTree.parse(svg)
        # The same figures as a run of its own.
        alone = mete_json("eval", "-m", tiny_model(), "-f", self.text, "-c", 64, "--chunks", 2, "--reference", "self",
                          "-ctk", "q8_0", "-ctv", "q8_0", "--json")
        self.assertEqual(alone["kl_mean"], settings["q8_0"]["kl_mean"])
        code, out, _ = mete(*self.sweep(SWEEP.replace("chunks = 2", "chunks = 2\ncompact = 16"), "-m", tiny_model()))
        self.assertEqual(code, 0)
        self.assertIn("KL is a lower bound", out)
        self.assertIn("MiB", out)

    def test_bad_sweeps_are_refused(self):
        model = f'model = "{tiny_model()}"\n'
        for text, fragment in (
                ("file = ", "line 1"),
                ('file = "text.txt"\n', "no [[setting]]"),
                ('setting = 5\n', "no [[setting]]"),
                (model + SWEEP.replace('"f16"', '"q8_0"', 1), "a second setting"),
                (model + SWEEP.replace('name = "f16"', ""), "'name' is missing"),
                (model + SWEEP + 'chunks = 1\n', "belongs at the top"),
                (model + SWEEP + 'no-such = 1\n', "no-such"),
                (model + SWEEP.replace('cache-type-k = "q8_0"', 'cache-type-k = ["a", {}]'), "expected a text"),
                (model + SWEEP.replace('cache-type-k = "q8_0"', 'cache-type-k = "q9"'), "q9"),
                (model + SWEEP.replace('file = "text.txt"', ''), "no effect without a text"),
                (model + SWEEP.replace('threads = 1', 'json = true'), "not an option of a sweep"),
                (model + SWEEP.replace('threads = 1', 'allow-code-execution = false'), "leave the option out"),
                (SWEEP, "-m is missing"),
                (SWEEP.replace('[[setting]]', f'[[setting]]\n{model}'), "needs a model at the top")):
            code, out, err = mete(*self.sweep(text))
            self.assertEqual((code, out), (2, ""), (text, err))
            self.assertIn(fragment, err, text)
        self.refused("cannot stand beside --sweep", *self.sweep(model + SWEEP, "-ctk", "q8_0"))
        self.refused("--svg has no effect", *self.base, "--svg", "x.svg")


if __name__ == "__main__":
    unittest.main()
