"""Bad input: the right exit code and one line that names the thing."""
import pathlib
import struct
import unittest

from harness import TemporaryDirectory, mete, tiny_model


class Usage(unittest.TestCase):
    def expect(self, code, fragment, *args, **kwargs):
        got, out, err = mete(*args, **kwargs)
        self.assertEqual(got, code, f"{args}: {out}{err}")
        self.assertIn(fragment, err)
        self.assertEqual(len(err.strip().split("\n")), 1, err)

    def test_no_command_teaches(self):
        code, out, err = mete()
        self.assertEqual((code, out), (2, ""))
        self.assertIn("mete run -m", err)

    def test_help_of_every_command(self):
        self.assertEqual(mete("--help")[0], 0)
        for command in ("run", "bench", "eval", "inspect", "plan", "tokenize"):
            code, out, err = mete(command, "--help")
            self.assertEqual((code, err), (0, ""), command)
            self.assertIn("--", out)

    def test_help_shows_short_and_long_names(self):
        out = mete("run", "--help")[1]
        for name in ("-ub", "-tb", "-ctk", "-ctv", "-sys", "-no-cnv", "--ubatch-size", "--cache-type-k"):
            self.assertIn(name, out)

    def test_unknown_things(self):
        self.expect(2, "unknown command 'walk'", "walk")
        self.expect(2, "--no-such", "run", "-m", "x", "--no-such")
        self.expect(2, "--model", "run", "-p", "hi")
        self.expect(2, "METE_CPU_TIER", "run", "-m", tiny_model(), "-p", "a", "-no-cnv",
                    env={"METE_CPU_TIER": "avx9000"})

    def test_missing_model_names_the_path(self):
        self.expect(1, "/nonexistent/model.gguf", "run", "-m", "/nonexistent/model.gguf", "-p", "hi")

    def test_options_that_exclude_each_other(self):
        model = tiny_model()
        self.expect(2, "-p and -f", "run", "-m", model, "-p", "a", "-f", "b")
        self.expect(2, "--json needs a prompt", "run", "-m", model, "--json")
        self.expect(2, "--system-prompt", "run", "-m", model, "-p", "a", "-no-cnv", "-sys", "b")
        self.expect(2, "--cache-type-k", "run", "-m", model, "-p", "a", "-ctk", "q3")
        self.expect(2, "top_p: found 2", "run", "-m", model, "-p", "a", "-no-cnv", "--top-p", "2")
        self.expect(2, "--samplers", "run", "-m", model, "-p", "a", "--samplers", "top_k;magic")
        self.expect(2, "--top-k has no effect with --mirostat", "run", "-m", model, "-p", "a", "--mirostat", 2,
                    "--top-k", 5)
        self.expect(2, "--min-p has no effect: --samplers leaves min_p out", "run", "-m", model, "-p", "a",
                    "--samplers", "top_k;temperature", "--min-p", "0.1")
        self.expect(2, "--mirostat-ent has no effect without", "run", "-m", model, "-p", "a", "--mirostat-ent", 3)
        self.expect(2, "--logit-bias", "run", "-m", model, "-p", "a", "-l", "x+1")

    def test_corrupt_models(self):
        good = pathlib.Path(tiny_model()).read_bytes()
        cases = {
            "empty": b"",
            "magic": b"GGML" + good[4:],
            "version": good[:4] + struct.pack("<I", 99) + good[8:],
            "tensor count": good[:8] + struct.pack("<q", 1 << 60) + good[16:],
            "key count": good[:16] + struct.pack("<q", 1 << 60) + good[24:],
            "truncated header": good[:40],
            "truncated data": good[:-100],
        }
        with TemporaryDirectory() as folder:
            for name, data in cases.items():
                path = pathlib.Path(folder) / "bad.gguf"
                path.write_bytes(data)
                for command in (("run", "-p", "a"), ("inspect",), ("tokenize", "-p", "a")):
                    with self.subTest(case=name, command=command[0]):
                        head, *rest = command
                        where = (str(path),) if head == "inspect" else ("-m", str(path))
                        code, out, err = mete(head, *where, *rest)
                        self.assertEqual((code, out), (3, ""), err)
                        self.assertEqual(len(err.strip().split("\n")), 1, err)


if __name__ == "__main__":
    unittest.main()
