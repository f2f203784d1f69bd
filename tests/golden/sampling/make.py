#!/usr/bin/env python3
"""Makes llama.json: distributions that llama.cpp's samplers give, through the C interface of its shared library.

  make.py DIR    DIR holds libllama.so and the libggml*.so beside it

Each case: parameters by the names of SamplingParams (the rest neutral), stages in order, accepted tokens, the row's
seed, and the surviving ids with their probabilities. Logits are made by row() here and in the test."""
import ctypes as c
import json
import math
import pathlib
import sys

VOCAB = 400
lib_dir = pathlib.Path(sys.argv[1])
for name in ("libggml-base.so", "libggml-cpu.so", "libggml.so"):
    c.CDLL(str(lib_dir / name), c.RTLD_GLOBAL)
lib = c.CDLL(str(lib_dir / "libllama.so"))


class Token(c.Structure):
    _fields_ = [("id", c.c_int32), ("logit", c.c_float), ("p", c.c_float)]


class Tokens(c.Structure):
    _fields_ = [("data", c.POINTER(Token)), ("size", c.c_size_t), ("selected", c.c_int64), ("sorted", c.c_bool)]


def make(name, *args):
    function = getattr(lib, "llama_sampler_init_" + name)
    function.restype = c.c_void_p
    return function(*args)


F, I, Z, U = c.c_float, c.c_int32, c.c_size_t, c.c_uint32
BUILD = {
    "penalties": lambda p: make("penalties", I(VOCAB), I(p.get("penalty_last_n", 64)), F(p.get("repeat_penalty", 1)),
                                F(p.get("frequency_penalty", 0)), F(p.get("presence_penalty", 0))),
    "dry": lambda p: make("dry", None, F(p.get("dry_multiplier", 0)), F(p.get("dry_base", 1.75)),
                          I(p.get("dry_allowed_length", 2)), I(p.get("dry_penalty_last_n", 1024)), None, Z(0)),
    "top_n_sigma": lambda p: make("top_n_sigma", F(p["top_n_sigma"])),
    "top_k": lambda p: make("top_k", I(p["top_k"])),
    "typ_p": lambda p: make("typical", F(p["typical_p"]), Z(p.get("min_keep", 0))),
    "top_p": lambda p: make("top_p", F(p["top_p"]), Z(p.get("min_keep", 0))),
    "min_p": lambda p: make("min_p", F(p["min_p"]), Z(p.get("min_keep", 0))),
    "xtc": lambda p: make("xtc", F(1), F(p["xtc_threshold"]), Z(p.get("min_keep", 0)), U(1)),
    "temperature": lambda p: make("temp_ext", F(p["temperature"]), F(p.get("dynatemp_range", 0)),
                                  F(p.get("dynatemp_exponent", 1))),
    "mirostat1": lambda p: make("mirostat", I(VOCAB), U(1), F(p["mirostat_tau"]), F(0.1), I(100)),
    "mirostat2": lambda p: make("mirostat_v2", U(1), F(p["mirostat_tau"]), F(0.1)),
    "dist": lambda p: make("dist", U(1)),
}
CASES = [
    ("top_k", {"top_k": 7}),
    ("top_p", {"top_p": 0.8}),
    ("min_p", {"min_p": 0.1}),
    ("typ_p", {"typical_p": 0.6}),
    ("top_n_sigma", {"top_n_sigma": 1.0}),
    ("top_n_sigma;temperature", {"top_n_sigma": 1.5, "temperature": 2.0}),
    ("temperature", {"temperature": 0.3}),
    ("temperature", {"temperature": 1.0, "dynatemp_range": 0.5, "dynatemp_exponent": 1.5}),
    ("xtc", {"xtc_threshold": 0.03, "xtc_probability": 1.0}),
    ("top_p;xtc", {"top_p": 0.9, "xtc_threshold": 0.05, "xtc_probability": 1.0, "min_keep": 2}),
    ("top_k;top_p;min_p;temperature", {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8}),
    ("temperature;min_p;top_k;top_p", {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temperature": 0.8}),
    ("penalties", {"repeat_penalty": 1.3, "frequency_penalty": 0.2, "presence_penalty": 0.1, "penalty_last_n": 12}),
    ("penalties;top_k", {"repeat_penalty": 1.1, "penalty_last_n": 64, "top_k": 20}),
    ("dry", {"dry_multiplier": 0.8, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": 1024}),
    ("dry", {"dry_multiplier": 1.5, "dry_base": 1.2, "dry_allowed_length": 1, "dry_penalty_last_n": 20}),
    ("penalties;dry;top_n_sigma;top_k;typ_p;top_p;min_p;xtc;temperature",
     {"repeat_penalty": 1.2, "penalty_last_n": 64, "dry_multiplier": 0.8, "dry_penalty_last_n": 1024,
      "top_n_sigma": 2.0, "top_k": 50, "typical_p": 0.9, "top_p": 0.9, "min_p": 0.02, "xtc_threshold": 0.08,
      "xtc_probability": 1.0, "temperature": 0.7}),
    ("temperature;mirostat1", {"mirostat": 1, "mirostat_tau": 2.0, "temperature": 0.9}),
    ("temperature;mirostat2", {"mirostat": 2, "mirostat_tau": 2.5, "temperature": 0.9}),
]


def row(seed):
    """Multiples of 1/256 in about [-6, 10], the high ones rarer."""
    x, out = seed, []
    for _ in range(VOCAB):
        x = (x * 1103515245 + 12345) % 2**31
        u = (x >> 8) % 4096
        out.append((u * u // 4096) / 256.0 - 6.0)
    return out


HISTORY = [5, 9, 17, 3, 5, 9, 17, 4, 8, 5, 9, 17, 3, 250, 251, 250, 251, 3, 5, 9, 17, 3, 5, 9, 17]


def run(stages, params, seed):
    data = (Token * VOCAB)(*[Token(i, z, 0) for i, z in enumerate(row(seed))])
    tokens = Tokens(data, VOCAB, -1, False)
    for name in stages.split(";") + ([] if "mirostat" in stages else ["dist"]):
        sampler = c.c_void_p(BUILD[name](params))
        if name in ("penalties", "dry"):
            for token in HISTORY:
                lib.llama_sampler_accept(sampler, I(token))
        lib.llama_sampler_apply(sampler, c.byref(tokens))
        lib.llama_sampler_free(sampler)
    found = [(tokens.data[i].id, tokens.data[i].p) for i in range(tokens.size)]
    found = sorted(((i, p) for i, p in found if p > 0), key=lambda x: (-x[1], x[0]))
    assert all(math.isfinite(p) for _, p in found)
    return {"kept": len(found), "ids": [i for i, _ in found[:12]], "p": [float(f"{p:.7g}") for _, p in found[:12]]}


out = [{"stages": stages, "params": params, "seed": seed, **run(stages, params, seed)}
       for stages, params in CASES for seed in (1, 2, 3)]
path = pathlib.Path(__file__).resolve().parent / "llama.json"
path.write_text(json.dumps({"history": HISTORY, "cases": out}, separators=(",", ":")).replace('{"stages"', '\n{"stages"')
                + "\n", encoding="utf-8")
