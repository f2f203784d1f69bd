#!/usr/bin/env python3
"""Makes the golden files of this folder: what llama.cpp answers on real models.

    tests/golden/llama/make.py --models DIR --text wikitext2-valid.txt [NAME ...]

One JSON file per model: greedy continuations (64 ids) of ten prompts, given as ids, with the margin of every step
(log-probability of the best token minus that of the second, in nats; end-of-generation tokens do not stop), and
perplexity with llama-perplexity's windows and scoring. An engine that rounds differently agrees until the first step
with a small margin. How sure the file itself is, without the rounding of activations to 8 bits, says float_margin: the
same text through llama.cpp on a float32 copy of the file; log-probability of the chosen token minus that of the best
other one, negative where the copy would choose another. Needs numpy, gguf and the llama.cpp binding (see
tools/llama_peer.py); a few minutes per model, and --scratch with room for the float32 copy.
"""
import argparse
import hashlib
import json
import os
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "..", "tools"))

import numpy as np
from llama_peer import FLAGS, LlamaPeer, log_softmax, text_windows

MODELS = {
    "smollm2-135m-q4_1": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3-270m-q4_k_m": "gemma-3-270m-q4_k_m.gguf",
    "qwen2.5-coder-0.5b-q4_k_m": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "smolmoe-268m-q4_0": "smolmoe-268m-a81m-q4_0.gguf",
}
PREDICT, WINDOW, CHUNKS = 64, 512, 4
PROMPTS = {
    "fact": "The capital of France is",
    "story": "Once upon a time, in a village between two mountains, there lived a clockmaker who",
    "explain": "Question: Why is the sky blue?\nAnswer:",
    "python": "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "c": "#include <stdio.h>\n\n/* Prints the primes below 100. */\nint main(void) {\n",
    "list": "Ten things to pack for a week in the mountains:\n1.",
    "arithmetic": "12 + 30 = 42\n7 + 8 = 15\n19 + 4 = 23\n25 + 16 =",
    "json": "{\"name\": \"Ada Lovelace\", \"born\": 1815, \"field\": \"mathematics\"}\n{\"name\": \"Alan Turing\",",
    "german": "Die Geschichte der Eisenbahn in Deutschland beginnt im Jahr",
    # Past Gemma's window of 512 tokens.
    "long": "".join(f"Line {i}: the square of {i} is {i * i}.\n" for i in range(1, 61)) + "Line 61: the square of",
}


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def greedy(peer, prompt):
    peer.clear()
    ids, margins = [], []
    row = peer.decode(prompt, len(prompt) - 1)[0]
    while True:
        best, second = (int(i) for i in np.argsort(-row, kind="stable")[:2])
        log_p = log_softmax(row)
        ids.append(best)
        margins.append(round(float(log_p[best] - log_p[second]), 4))
        if len(ids) == PREDICT:
            return ids, margins
        row = peer.decode([best], 0)[0]


def float_margins(peer, prompt, ids):
    """Per step, the chosen token's log-probability minus that of the best other token."""
    peer.clear()
    rows = peer.decode(prompt + ids[:-1], len(prompt) - 1)
    margins = []
    for row, chosen in zip(rows, ids):
        others = np.delete(row, chosen)
        margins.append(round(float(row[chosen] - others.max()), 4))
    return margins


def write_float_copy(path, out):
    """The same model with every tensor in float32."""
    import gguf
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        sub_type = field.types[1] if len(field.types) > 1 else None
        writer.add_key_value(key, field.contents(), field.types[0], sub_type)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def perplexity(peer, text):
    """Perplexity, its standard error, and the mean negative log-likelihood of each window."""
    windows = text_windows(peer, text, WINDOW, CHUNKS)
    nll = []
    for window in windows:
        log_p = log_softmax(peer.window_logits(window))
        targets = window[WINDOW // 2 + 1:]
        nll.append(-log_p[np.arange(len(targets)), targets])
    values = np.concatenate(nll)
    ppl = np.exp(values.mean())
    error = ppl * np.sqrt((np.mean(values ** 2) - values.mean() ** 2) / (values.size - 1))
    return round(float(ppl), 5), round(float(error), 5), [round(float(n.mean()), 6) for n in nll]


def add_float_margins(path, data, threads, scratch):
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        copy = os.path.join(folder, "float.gguf")
        write_float_copy(path, copy)
        peer = LlamaPeer(copy, 2048, threads)
        for prompt in data["prompts"]:
            prompt["float_margin"] = float_margins(peer, prompt["tokens"], prompt["continuation"])


def golden(path, text_path, threads):
    peer = LlamaPeer(path, 2048, threads)
    with open(text_path, encoding="utf-8") as file:
        ppl, error, windows = perplexity(peer, file.read())
    prompts = []
    for name, text in PROMPTS.items():
        tokens = peer.tokenize(text)
        ids, margins = greedy(peer, tokens)
        prompts.append(dict(name=name, text=text, tokens=tokens, continuation=ids, margin=margins))
    return dict(
        model=dict(file=os.path.basename(path), bytes=os.path.getsize(path), sha256=sha256(path)),
        peer=dict(engine="llama.cpp (llama-cpp-python 0.3.36)", flags=f"{FLAGS}, {threads} threads"),
        perplexity=dict(text=os.path.basename(text_path), text_sha256=sha256(text_path), n_ctx=WINDOW, chunks=CHUNKS,
                        ppl=ppl, ppl_se=error, window_nll=windows),
        prompts=prompts)


def write(path, data):
    """JSON with one line per field and per prompt."""
    prompts = ",\n".join("  " + json.dumps(p, separators=(",", ":")) for p in data["prompts"])
    head = "".join(f' "{key}": {json.dumps(data[key])},\n' for key in ("model", "peer", "perplexity"))
    with open(path, "w", encoding="ascii") as out:
        out.write("{\n" + head + ' "prompts": [\n' + prompts + "\n ]\n}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of " + ", ".join(MODELS))
    parser.add_argument("--models", required=True, metavar="DIR")
    parser.add_argument("--text", required=True, metavar="FILE")
    parser.add_argument("--scratch", metavar="DIR", help="for the float32 copy; default: the temporary folder")
    parser.add_argument("-t", "--threads", type=int, default=2)
    arguments = parser.parse_args()
    for name in arguments.names or MODELS:
        path = os.path.join(arguments.models, MODELS[name])
        data = golden(path, arguments.text, arguments.threads)
        add_float_margins(path, data, arguments.threads, arguments.scratch)
        write(os.path.join(HERE, name + ".json"), data)
        p = data["perplexity"]
        print(f"{name}: perplexity {p['ppl']:.4f} +- {p['ppl_se']:.4f}", flush=True)


if __name__ == "__main__":
    main()
