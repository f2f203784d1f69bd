#!/usr/bin/env python3
"""Writes a GGUF file of a given shape and type mix with random weights, for timing where no real file is at hand.

    tools/make_synthetic_gguf.py --shape qwen2-1.5b --mix q4_k_m --tokenizer-from qwen.gguf -o out.gguf

The blocks are drawn directly in their quantised form (random codes and sub-scales, float16 scales chosen so that a
weight has mean 0 and deviation 0.7 / sqrt(columns)), which keeps the forward pass finite. What the model says is
noise, and routers of random weights spread tokens evenly over the experts. The tokenizer's metadata are copied byte
for byte from --tokenizer-from, whose token count is the vocabulary.
The same arguments give the same file. Needs numpy.
"""
import argparse
import math
import os
import struct
import sys

import numpy as np

ALIGNMENT = 32
CHUNK_BLOCKS = 1 << 16  # blocks drawn at a time: bounds memory

# name: layers, width, heads, KV heads, head size, feed-forward width, tied embedding, QKV bias, RoPE base, context;
# with experts: their number, how many a token uses, and `ffn` is the width of one.
SHAPES = {
    "qwen2-1.5b": dict(arch="qwen2", layers=28, d=1536, heads=12, kv_heads=2, head=128, ffn=8960, tied=True,
                       bias=True, rope_base=1e6, context=32768, eps=1e-6),
    "llama3-1b": dict(arch="llama", layers=16, d=2048, heads=32, kv_heads=8, head=64, ffn=8192, tied=True,
                      bias=False, rope_base=5e5, context=131072, eps=1e-5),
    "llama3-8b": dict(arch="llama", layers=32, d=4096, heads=32, kv_heads=8, head=128, ffn=14336, tied=False,
                      bias=False, rope_base=5e5, context=8192, eps=1e-5),
    "qwen3-30b-a3b": dict(arch="qwen3moe", layers=48, d=2048, heads=32, kv_heads=4, head=128, ffn=768, experts=128,
                          used=8, tied=False, bias=False, qk_norm=True, rope_base=1e6, context=40960, eps=1e-6),
    # inputs: width of a layer's row of the per-layer table; shared: last layers without keys and values.
    "gemma-3n-e2b": dict(arch="gemma3n", layers=30, d=2048, heads=8, kv_heads=2, head=256, ffn=8192, tied=True,
                         bias=False, qk_norm=True, rope_base=1e6, context=32768, eps=1e-6, streams=4, inputs=256,
                         rank=64, shared=10, window=512),
}

# name: GGUF type id, weights per block, bytes per block, deviation of a weight for unit scale, layout of the scales
# as (byte offset, factor of the scale). The deviations follow from uniform random codes, sub-scales and minima; the
# second factor of types with a minimum centres the weights.
TYPES = {
    "Q4_0": (2, 32, 18, 4.64, [(0, 1.0)]),              # d (q - 8), q in 0..15
    "Q4_1": (3, 32, 20, 4.61, [(0, 1.0), (2, -7.5)]),   # d q + m
    "Q5_0": (6, 32, 22, 9.25, [(0, 1.0)]),              # d (q - 16), q in 0..31
    "Q8_0": (8, 32, 34, 73.9, [(0, 1.0)]),              # d q, q in -128..127
    "Q4_K": (12, 256, 144, 258.0, [(0, 1.0), (2, 7.5)]),    # d sc q - dmin m; sc, m in 0..63, q in 0..15
    "Q5_K": (13, 256, 176, 534.0, [(0, 1.0), (2, 15.5)]),   # as Q4_K, q in 0..31
    "Q6_K": (14, 256, 210, 1366.0, [(208, 1.0)]),       # d sc (q - 32); sc in -128..127, q in 0..63
}

# The type of each kind of matrix: (plain, where llama.cpp's mix spends more bits, embedding and output).
MIXES = {
    "q4_k_m": ("Q4_K", "Q6_K", "Q6_K", 15),
    "q5_k_m": ("Q5_K", "Q6_K", "Q6_K", 17),
    "q6_k": ("Q6_K", "Q6_K", "Q6_K", 18),
    "q4_0": ("Q4_0", "Q4_0", "Q6_K", 2),
    "q8_0": ("Q8_0", "Q8_0", "Q8_0", 7),
}


def fail(message):
    sys.exit(f"make_synthetic_gguf.py: {message}")


class GgufMetadata:
    """The key-value section of a GGUF file: raw bytes of each pair, and the length of each array."""

    SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}

    def __init__(self, path):
        self.pairs, self.counts = {}, {}
        with open(path, "rb") as self.file:
            magic, version, _, pairs = struct.unpack("<4sIQQ", self.file.read(24))
            if magic != b"GGUF" or version not in (2, 3):
                fail(f"{path} is not a GGUF file of version 2 or 3")
            for _ in range(pairs):
                start = self.file.tell()
                key = self.file.read(self.unpack("<Q")).decode()
                count = self.skip_value(self.unpack("<I"))
                end = self.file.tell()
                self.file.seek(start)
                self.pairs[key], self.counts[key] = self.file.read(end - start), count

    def unpack(self, layout):
        return struct.unpack(layout, self.file.read(struct.calcsize(layout)))[0]

    def skip_value(self, kind):
        """Moves past a value and returns its length if it is an array."""
        if kind == 8:
            self.file.seek(self.unpack("<Q"), os.SEEK_CUR)
        elif kind == 9:
            element, count = self.unpack("<I"), self.unpack("<Q")
            if element in self.SCALAR_BYTES:
                self.file.seek(count * self.SCALAR_BYTES[element], os.SEEK_CUR)
            else:
                for _ in range(count):
                    self.skip_value(element)
            return count
        else:
            self.file.seek(self.SCALAR_BYTES[kind], os.SEEK_CUR)
        return None


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, value):
    if isinstance(value, str):
        return string(key) + struct.pack("<I", 8) + string(value)
    if isinstance(value, list):  # of booleans or floats
        kind, code = (7, "?") if isinstance(value[0], bool) else (6, "f")
        return string(key) + struct.pack(f"<IIQ{len(value)}{code}", 9, kind, len(value), *value)
    if isinstance(value, float):
        return string(key) + struct.pack("<If", 6, value)
    return string(key) + struct.pack("<II", 4, value)


def more_bits(layer, layers):
    """Where llama.cpp's *_K_M mixes give attn_v and ffn_down the larger type."""
    return layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2


def stream_tensors(shape, name, plain):
    """A layer's tensors of Gemma 3n beside attention and feed-forward network."""
    d, streams, inputs, rank = shape["d"], shape["streams"], shape["inputs"], shape["rank"]
    yield name + "post_attention_norm.weight", d, 0, "F32", 0
    yield name + "post_ffw_norm.weight", d, 0, "F32", 0
    yield name + "laurel_l.weight", d, rank, plain, 0
    yield name + "laurel_r.weight", rank, d, "F32", 0
    yield name + "laurel_post_norm.weight", d, 0, "F32", 0
    yield name + "altup_router.weight", d, streams, "F32", 0
    yield name + "altup_router_norm.weight", d, 0, "F32", 0
    yield name + "altup_predict_coef.weight", streams, streams * streams, "F32", 0
    yield name + "altup_correct_coef.weight", streams, streams, "F32", 0
    yield name + "altup_correct_scale.weight", d, 0, "F32", 0
    yield name + "inp_gate.weight", d, inputs, plain, 0
    yield name + "proj.weight", inputs, d, plain, 0
    yield name + "post_norm.weight", d, 0, "F32", 0


def tensors_of(shape, mix, vocab):
    """(name, columns, rows, type, stack) of every tensor; rows 0 means a vector of F32, stack > 0 a third dimension."""
    plain, larger, embedding, _ = MIXES[mix]
    d, ffn = shape["d"], shape["ffn"]
    experts = shape.get("experts", 0)
    q_width, kv_width = shape["heads"] * shape["head"], shape["kv_heads"] * shape["head"]
    yield "token_embd.weight", d, vocab, embedding, 0
    for layer in range(shape["layers"]):
        name = f"blk.{layer}."
        important = larger if more_bits(layer, shape["layers"]) else plain
        yield name + "attn_norm.weight", d, 0, "F32", 0
        yield name + "attn_q.weight", d, q_width, plain, 0
        yield name + "attn_k.weight", d, kv_width, plain, 0
        yield name + "attn_v.weight", d, kv_width, important, 0
        if shape["bias"]:
            yield name + "attn_q.bias", q_width, 0, "F32", 0
            yield name + "attn_k.bias", kv_width, 0, "F32", 0
            yield name + "attn_v.bias", kv_width, 0, "F32", 0
        if shape.get("qk_norm"):
            yield name + "attn_q_norm.weight", shape["head"], 0, "F32", 0
            yield name + "attn_k_norm.weight", shape["head"], 0, "F32", 0
        yield name + "attn_output.weight", q_width, d, plain, 0
        if shape.get("streams"):
            yield from stream_tensors(shape, name, plain)
        yield name + "ffn_norm.weight", d, 0, "F32", 0
        if experts:
            yield name + "ffn_gate_inp.weight", d, experts, "F32", 0
            yield name + "ffn_gate_exps.weight", d, ffn, plain, experts
            yield name + "ffn_up_exps.weight", d, ffn, plain, experts
            yield name + "ffn_down_exps.weight", ffn, d, plain, experts
            continue
        yield name + "ffn_gate.weight", d, ffn, plain, 0
        yield name + "ffn_up.weight", d, ffn, plain, 0
        yield name + "ffn_down.weight", ffn, d, important, 0
    yield "output_norm.weight", d, 0, "F32", 0
    if shape.get("streams"):
        inputs = shape["layers"] * shape["inputs"]
        yield "per_layer_token_embd.weight", inputs, vocab, embedding, 0
        yield "per_layer_model_proj.weight", d, inputs, plain, 0
        yield "per_layer_proj_norm.weight", shape["inputs"], 0, "F32", 0
        yield "altup_proj.weight", d, d, plain, shape["streams"] - 1
        yield "altup_unembd_proj.weight", d, d, plain, shape["streams"] - 1
    if not shape["tied"]:
        yield "output.weight", d, vocab, embedding, 0


def tensor_bytes(columns, rows, kind):
    if kind == "F32":
        return 4 * columns * max(rows, 1)
    _, weights, size, _, _ = TYPES[kind]
    if columns % weights:
        fail(f"rows of {columns} weights do not fill blocks of {kind} ({weights} weights)")
    return rows * (columns // weights) * size


def write_tensor(out, rng, name, columns, rows, kind):
    if kind == "F32":
        norm = name.endswith(("norm.weight", "correct_scale.weight"))
        deviation = 2 / math.sqrt(columns) if rows else 0.1
        values = np.ones(columns) if norm else rng.normal(0, deviation, columns * max(rows, 1))
        out.write(values.astype("<f4").tobytes())
        return
    _, weights, size, deviation, scales = TYPES[kind]
    scale = 0.7 / math.sqrt(columns) / deviation
    blocks = rows * (columns // weights)
    for start in range(0, blocks, CHUNK_BLOCKS):
        count = min(CHUNK_BLOCKS, blocks - start)
        data = np.frombuffer(rng.bytes(count * size), np.uint8).reshape(count, size).copy()
        spread = rng.uniform(0.75, 1.25, count)
        for offset, factor in scales:
            field = (spread * scale * factor).astype("<f2")
            data[:, offset:offset + 2] = field.view(np.uint8).reshape(count, 2)
        out.write(data.tobytes())


def write_file(path, shape, mix, tokenizer, seed):
    vocab = tokenizer.counts.get("tokenizer.ggml.tokens")
    if not vocab:
        fail("the tokenizer's file has no tokenizer.ggml.tokens")
    arch = shape["arch"]
    pairs = [pair("general.architecture", arch), pair("general.type", "model"),
             pair("general.name", f"synthetic {arch} {mix}"), pair("general.file_type", MIXES[mix][3]),
             pair("general.quantization_version", 2), pair("general.alignment", ALIGNMENT),
             pair(arch + ".block_count", shape["layers"]), pair(arch + ".context_length", shape["context"]),
             pair(arch + ".embedding_length", shape["d"]), pair(arch + ".feed_forward_length", shape["ffn"]),
             pair(arch + ".attention.head_count", shape["heads"]),
             pair(arch + ".attention.head_count_kv", shape["kv_heads"]),
             pair(arch + ".rope.dimension_count", shape["head"]), pair(arch + ".vocab_size", vocab),
             pair(arch + ".rope.freq_base", float(shape["rope_base"])),
             pair(arch + ".attention.layer_norm_rms_epsilon", float(shape["eps"]))]
    if shape.get("experts"):
        pairs += [pair(arch + ".expert_count", shape["experts"]), pair(arch + ".expert_used_count", shape["used"]),
                  pair(arch + ".expert_feed_forward_length", shape["ffn"])]
    if shape.get("streams"):
        layers = shape["layers"]
        pairs += [pair(arch + ".altup.active_idx", 0), pair(arch + ".altup.num_inputs", shape["streams"]),
                  pair(arch + ".embedding_length_per_layer_input", shape["inputs"]),
                  pair(arch + ".attention.shared_kv_layers", shape["shared"]),
                  pair(arch + ".attention.sliding_window", shape["window"]),
                  pair(arch + ".attention.sliding_window_pattern", [layer % 5 < 4 for layer in range(layers)]),
                  pair(arch + ".activation_sparsity_scale",
                       [1.6448533535 if layer < 10 else -math.inf for layer in range(layers)])]
    if shape["heads"] * shape["head"] != shape["d"] or arch == "gemma3n":
        pairs += [pair(arch + ".attention.key_length", shape["head"]),
                  pair(arch + ".attention.value_length", shape["head"])]
    pairs += [raw for key, raw in tokenizer.pairs.items() if key.startswith("tokenizer.")]
    tensors = list(tensors_of(shape, mix, vocab))

    rng = np.random.Generator(np.random.PCG64(seed))
    with open(path, "wb") as out:
        out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)))
        out.write(b"".join(pairs))
        offset = 0
        for name, columns, rows, kind, stack in tensors:
            sizes = [columns] + [size for size in (rows, stack) if size]
            type_id = 0 if kind == "F32" else TYPES[kind][0]
            out.write(string(name) + struct.pack("<I", len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes))
            out.write(struct.pack("<IQ", type_id, offset))
            offset += -(-tensor_bytes(columns, rows * max(stack, 1), kind) // ALIGNMENT) * ALIGNMENT
        out.write(bytes(-out.tell() % ALIGNMENT))
        for name, columns, rows, kind, stack in tensors:
            write_tensor(out, rng, name, columns, rows * max(stack, 1), kind)
            out.write(bytes(-out.tell() % ALIGNMENT))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="qwen2-1.5b")
    parser.add_argument("--mix", choices=sorted(MIXES), default="q4_k_m")
    parser.add_argument("--layers", type=int, help="another number of layers than the shape's")
    parser.add_argument("--tokenizer-from", required=True, metavar="FILE", help="GGUF file to copy the tokenizer from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", required=True, metavar="FILE")
    arguments = parser.parse_args()

    shape = dict(SHAPES[arguments.shape])
    if arguments.layers:
        shape["layers"] = arguments.layers
    temporary = arguments.output + ".part"
    write_file(temporary, shape, arguments.mix, GgufMetadata(arguments.tokenizer_from), arguments.seed)
    os.replace(temporary, arguments.output)
    print(f"{arguments.output}: {os.path.getsize(arguments.output):,} bytes")


if __name__ == "__main__":
    main()
