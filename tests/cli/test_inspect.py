#!/usr/bin/env python3
"""Drives `mete inspect` on small files made here."""
import json
import os
import pathlib
import struct
import subprocess
import tempfile
import unittest

from harness import BINARY, SMOLLM2, needs_smollm2


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack("<Q", len(data)) + data


def model(tensor_type=2):
    """Two keys, an array of 20, a Q4_0 matrix [64, 3] and an F32 vector [5]."""
    pairs = string("general.architecture") + struct.pack("<i", 8) + string("llama")
    pairs += string("odd") + struct.pack("<i", 8) + string(b"a\x1b[31m\xff\n")
    pairs += string("list") + struct.pack("<iiQ", 9, 4, 20) + struct.pack("<20I", *range(20))
    infos = string("w") + struct.pack("<I2qiQ", 2, 64, 3, tensor_type, 0)
    infos += string("norm") + struct.pack("<IqiQ", 1, 5, 0, 128)
    head = b"GGUF" + struct.pack("<IQQ", 3, 2, 3) + pairs + infos
    return head + bytes(-len(head) % 32) + bytes(128 + 20)


class Inspect(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.directory.name) / "m.gguf"
        self.path.write_bytes(model())

    def tearDown(self):
        self.directory.cleanup()

    def run_mete(self, *args, **env):
        return subprocess.run([BINARY, "inspect", *map(str, args)], capture_output=True, env={**os.environ, **env})

    def fails(self, code, message, *args, **env):
        done = self.run_mete(*args, **env)
        self.assertEqual((done.returncode, done.stdout), (code, b""), done.stderr)
        self.assertEqual(done.stderr.count(b"\n"), 1)
        self.assertIn(message, done.stderr.decode())

    def test_json(self):
        out = json.loads(self.run_mete("--json", self.path).stdout)
        self.assertEqual(out["parameters"], 64 * 3 + 5)
        self.assertEqual(out["tensor_bytes"], 108 + 20)
        self.assertEqual(out["file_bytes"], self.path.stat().st_size)
        self.assertEqual(out["metadata"]["general.architecture"], {"type": "STRING", "value": "llama"})
        self.assertEqual(out["metadata"]["list"], {"type": "ARRAY", "element": "U32", "count": 20,
                                                   "value": list(range(8))})
        self.assertEqual([(t["name"], t["type"], t["shape"], t["bytes"]) for t in out["tensors"]],
                         [("w", "Q4_0", [64, 3], 108), ("norm", "F32", [5], 20)])
        self.assertEqual([(t["type"], t["tensors"], t["bits_per_weight"]) for t in out["types"]],
                         [("F32", 1, 32.0), ("Q4_0", 1, 4.5)])

    def test_full_arrays(self):
        out = json.loads(self.run_mete("--json", "--full", self.path).stdout)
        self.assertEqual(out["metadata"]["list"]["value"], list(range(20)))

    def test_text_escapes_what_a_terminal_would_obey(self):
        done = self.run_mete(self.path)
        self.assertEqual(done.returncode, 0)
        self.assertIn(b'"a\\x1b[31m\\xff\\n"', done.stdout)
        self.assertNotIn(b"\x1b", done.stdout)
        self.assertIn(b"[0, 1, 2, 3, 4, 5, 6, 7, ...]", done.stdout)

    def test_print_cpu(self):
        cpu = json.loads(self.run_mete("--print-cpu", "--json").stdout)["cpu"]
        self.assertIn(cpu["tier"], [t["name"] for t in cpu["tiers"] if t["supported"]])
        self.assertEqual(cpu["tiers"][0]["name"], "generic")
        forced = json.loads(self.run_mete("--print-cpu", "--json", METE_CPU_TIER="generic").stdout)["cpu"]
        self.assertEqual(forced["tier"], "generic")
        self.fails(2, "not a tier", "--print-cpu", METE_CPU_TIER="fast")

    def test_bad_files(self):
        self.path.write_bytes(model(tensor_type=16))
        self.fails(3, 'tensor "w" has type IQ2_XXS', self.path)
        self.path.write_bytes(model()[:-1])
        self.fails(3, "truncated", self.path)
        self.path.write_bytes(b"PK\x03\x04 not a model")
        self.fails(3, "magic", self.path)
        self.fails(1, "no such file", self.path.with_name("absent.gguf"))
        self.fails(1, "not a regular file", self.directory.name)

    def test_engine_section(self):
        engine = json.loads(self.run_mete("--json", self.path).stdout)["engine"]
        self.assertFalse(engine["runs"])  # the file has no llama.block_count
        self.assertIn("llama.", engine["reason"])
        self.assertIn(b"runs                          false", self.run_mete(self.path).stdout)

    def test_a_hostile_string_in_a_message_stays_one_line(self):
        self.path.write_bytes(model().replace(string("llama"), string("l\nm\x1ba")))
        done = subprocess.run([BINARY, "run", "-m", str(self.path), "-p", "x"], capture_output=True)
        self.assertEqual((done.returncode, done.stdout), (3, b""), done.stderr)
        self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)
        self.assertIn(b"l\\x0am\\x1ba", done.stderr)

    @needs_smollm2
    def test_engine_section_of_a_real_model(self):
        engine = json.loads(self.run_mete("--json", SMOLLM2).stdout)["engine"]
        self.assertTrue(engine["runs"])
        self.assertEqual([engine[k] for k in ("layers", "d_model", "heads", "kv_heads", "head_dim", "vocab")],
                         [30, 576, 9, 3, 64, 49152])
        self.assertEqual(engine["kv_bytes_per_token_f16"], 30 * 3 * 64 * 2 * 2)
        self.assertEqual(engine["activations"]["Q4_1"], "int8, blocks of 16")

    def test_a_failed_write_is_exit_1_and_no_crash(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([BINARY, "inspect", str(self.path)], stdout=full, stderr=subprocess.PIPE)
        self.assertEqual(done.returncode, 1)

    def test_usage(self):
        self.fails(2, "no FILE given")
        self.fails(2, "--bogus", "--bogus", self.path)
        self.fails(2, "--full", "--full", "--print-cpu")


if __name__ == "__main__":
    unittest.main()
