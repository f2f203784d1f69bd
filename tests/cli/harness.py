"""What the command-line tests share: the binary, the default model, and a way to run one against the other."""
import json
import os
import pathlib
import subprocess
import tempfile
import unittest

BINARY = os.environ.get("METE_BINARY", "build/release/mete")
MODELS = pathlib.Path(os.environ.get("METE_MODEL_DIR", pathlib.Path.home() / ".cache/mete/models"))
SMOLLM2 = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"


def mete(*args, stdin=None, env=None, timeout=300):
    """Runs `mete ARGS`; returns (exit code, stdout, stderr) as text."""
    done = subprocess.run([BINARY, *map(str, args)], input=stdin, capture_output=True, timeout=timeout,
                          env={**os.environ, **(env or {})})
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def mete_json(*args, **kwargs):
    code, out, err = mete(*args, **kwargs)
    if code != 0:
        raise AssertionError(f"mete {args}: exit {code}: {err}")
    return json.loads(out)


def tiny_model():
    """A random-weight model with a tokenizer, written by the build (tests/CMakeLists.txt)."""
    return os.environ.get("METE_TINY_MODEL", "build/release/tests/tiny.gguf")


def tiny_moe():
    """The same with routed experts."""
    return os.environ.get("METE_TINY_MOE", "build/release/tests/tiny_moe.gguf")


needs_smollm2 = unittest.skipUnless(SMOLLM2.exists(), f"{SMOLLM2.name} is not in the model folder")
TemporaryDirectory = tempfile.TemporaryDirectory
