"""`mete run` as a user sees it, with a real model."""
import json
import os
import signal
import subprocess
import time
import unittest

from harness import BINARY, SMOLLM2, TemporaryDirectory, mete, mete_json, needs_smollm2

PROMPT = "Why is the sky blue? Answer in one sentence."


@needs_smollm2
class Run(unittest.TestCase):
    def test_json_has_the_promised_fields(self):
        j = mete_json("run", "-m", SMOLLM2, "-p", PROMPT, "-n", 8, "--temp", 0, "--json")
        self.assertEqual(len(j["tokens"]), 8)
        self.assertEqual(j["finish_reason"], "length")
        self.assertGreater(j["prompt_tokens"], 10)
        self.assertRegex(j["logits_hash"], r"^[0-9a-f]{16}$")
        r = j["receipt"]
        for field in ("load_s", "ttft_s", "prefill_tokens", "prefill_s", "decode_tokens", "decode_s",
                      "peak_rss_bytes", "cpu_tier", "threads"):
            self.assertIn(field, r)
        self.assertEqual(r["decode_tokens"], 7)

    def test_parts_of_the_ledger_add_up_to_the_time_on_the_clock(self):
        r = mete_json("run", "-m", SMOLLM2, "-p", PROMPT, "-n", 64, "--temp", 0, "--ignore-eos", "--json")["receipt"]
        for phase, seconds in (("prefill", r["ttft_s"]), ("decode", r["decode_s"])):
            ledger = r["ledger"][phase]
            parts = sum(part["s"] for part in ledger["parts"].values())
            self.assertAlmostEqual(parts, seconds, delta=0.03 * seconds, msg=phase)
        self.assertEqual(r["ledger"]["decode"]["generated_tokens"], 63)
        self.assertTrue(r["joules"] > 0 if r["joules"] is not None else r["joules_unavailable"])

    def test_same_text_and_hash_for_every_way_to_run(self):
        base = ("run", "-m", SMOLLM2, "-p", PROMPT, "-n", 24, "--json")
        for sampling in (("--temp", 0), ("--temp", "0.8", "-s", 7)):
            first = mete_json(*base, *sampling)
            for extra in (("-t", 1), ("-t", 3), ("-ub", 1), ("-ub", 7), ("-tb", 1, "-t", 2), ("-c", 512)):
                other = mete_json(*base, *sampling, *extra)
                self.assertEqual(first["tokens"], other["tokens"], extra)
                self.assertEqual(first["logits_hash"], other["logits_hash"], extra)

    def test_every_tier_gives_the_same_hash(self):
        base = ("run", "-m", SMOLLM2, "-p", PROMPT, "-n", 8, "--temp", 0, "--json")
        first = mete_json(*base)
        tiers = 0
        for tier in ("generic", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16"):
            code, out, err = mete(*base, env={"METE_CPU_TIER": tier})
            if code == 2 and "not supported here" in err:
                continue
            self.assertEqual(code, 0, err)
            j = json.loads(out)
            self.assertEqual(j["receipt"]["cpu_tier"], tier)
            self.assertEqual(j["logits_hash"], first["logits_hash"], tier)
            tiers += 1
        self.assertGreaterEqual(tiers, 1)

    def test_plain_output_is_the_json_text(self):
        args = ("run", "-m", SMOLLM2, "-p", PROMPT, "-n", 16, "--temp", 0)
        code, out, err = mete(*args)
        self.assertEqual((code, err), (0, ""))
        self.assertEqual(out.rstrip("\n"), mete_json(*args, "--json")["text"].rstrip("\n"))

    def test_prompt_from_file_and_raw_completion(self):
        with TemporaryDirectory() as folder:
            path = os.path.join(folder, "prompt.txt")
            with open(path, "w") as file:
                file.write("The capital of France is")
            raw = mete_json("run", "-m", SMOLLM2, "-f", path, "-no-cnv", "-n", 8, "--temp", 0, "--json")
            self.assertEqual(raw["prompt_tokens"], 5)
            self.assertIn("Paris", raw["text"])

    def test_stop_string_is_not_part_of_the_text(self):
        args = ("run", "-m", SMOLLM2, "-p", "1 2 3 4 5 6 7", "-no-cnv", "-n", 32, "--temp", 0, "--json")
        whole = mete_json(*args)["text"]
        stop = whole[5:8]
        cut = mete_json(*args, "-r", stop)
        self.assertEqual(cut["text"], whole[:whole.index(stop)])
        self.assertEqual(cut["finish_reason"], "stop")

    def test_prompt_longer_than_the_context_is_refused(self):
        code, out, err = mete("run", "-m", SMOLLM2, "-p", "word " * 200, "-c", 64, "--json")
        self.assertEqual((code, out), (2, ""))
        self.assertRegex(err, r"\b2\d\d tokens, the context holds 64")

    def test_full_context_ends_with_length_and_a_line(self):
        code, out, err = mete("run", "-m", SMOLLM2, "-p", "1 2 3", "-no-cnv", "-c", 24, "--ignore-eos", "--temp", 0,
                              "--json")
        self.assertEqual(code, 0)
        j = json.loads(out)
        self.assertEqual(j["finish_reason"], "length")
        self.assertEqual(j["prompt_tokens"] + len(j["tokens"]), 25)
        self.assertIn("context of 24 tokens is full", err)

    def test_special_tokens_in_user_text_stay_text(self):
        plain = mete_json("run", "-m", SMOLLM2, "-p", "x", "-n", 1, "--json")["prompt_tokens"]
        hostile = mete_json("run", "-m", SMOLLM2, "-p", "x<|im_end|>", "-n", 1, "--json")["prompt_tokens"]
        self.assertGreater(hostile, plain + 1)

    def test_invalid_utf8_prompt_is_taken_byte_by_byte(self):
        code, out, err = mete("run", "-m", SMOLLM2, "-p", b"\xff\xfe abc".decode("utf-8", "surrogateescape"),
                              "-n", 2, "--json")
        self.assertEqual(code, 0, err)
        self.assertEqual(len(json.loads(out)["tokens"]), 2)

    def test_chat_keeps_history_and_clears(self):
        code, out, err = mete("run", "-m", SMOLLM2, "-n", 8, "--temp", 0, "--receipt",
                              stdin=b"My name is Ada.\nSay hello.\n/clear\nMy name is Ada.\n/bogus\n")
        self.assertEqual(code, 0, err)
        replies = out.strip().split("\n")
        self.assertEqual(replies[0], replies[-1])
        self.assertIn("the conversation is forgotten", err)
        self.assertIn("unknown command /bogus", err)

    def test_closed_pipe_ends_cleanly(self):
        run = subprocess.Popen([BINARY, "run", "-m", str(SMOLLM2), "-p", "Tell a long story.", "-n", "400",
                                "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        run.stdout.read(1)
        run.stdout.close()
        err = run.stderr.read()
        run.stderr.close()
        self.assertEqual(run.wait(timeout=60), 0, err)

    def test_ctrl_c_ends_the_reply_cleanly(self):
        run = subprocess.Popen([BINARY, "run", "-m", str(SMOLLM2), "-p", "Tell a long story.", "--ignore-eos",
                                "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        time.sleep(3)
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=60)
        self.assertEqual(run.returncode, 130, err)
        self.assertEqual(json.loads(out)["finish_reason"], "cancelled")


if __name__ == "__main__":
    unittest.main()
