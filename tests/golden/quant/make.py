#!/usr/bin/env python3
"""Writes dequant.bin and quantize.bin beside this script, from the decoders and encoders of the Python package gguf
(ggml's own). Needs: pip install gguf==0.19.0.

Both files are a sequence of records: i32 type id, u32 block count, the blocks' bytes, the blocks' float32 values.
dequant.bin: random blocks and what they decode to. quantize.bin: random values and what they encode to."""
import pathlib
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

HERE = pathlib.Path(__file__).resolve().parent
# type -> byte offsets of the float16 scales in a block, which must be finite
SCALES = {
    T.F32: [], T.F16: [0], T.BF16: [], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0],
    T.MXFP4: [],
}
rng = np.random.default_rng(20240607)


def finite_halves(n):
    """Ordinary, negative, subnormal and zero float16 values."""
    values = rng.normal(0, 0.05, n).astype(np.float16)
    pick = rng.integers(0, 8, n)
    values[pick == 0] = np.float16(2.0**-20)
    values[pick == 1] = np.float16(0)
    return values


def random_blocks(t):
    block, size = GGML_QUANT_SIZES[t]
    count = {1: 32, 32: 4, 256: 2}[block]
    data = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in SCALES[t]:
        data[:, at:at + 2] = finite_halves(count).view(np.uint8).reshape(count, 2)
    if t == T.F32:
        data = rng.normal(0, 1, count).astype(np.float32).view(np.uint8).reshape(count, 4)
    if t == T.BF16:
        data = rng.normal(0, 1, count).astype(np.float32).view(np.uint8).reshape(count, 4)[:, 2:].copy()
    if t == T.MXFP4:
        data[:, 0] = [0, 1, 127, 200]
    return data


def record(t, blocks, values):
    return struct.pack("<iI", t.value, len(blocks)) + blocks.tobytes() + values.astype("<f4").tobytes()


def main():
    out = b""
    for t in SCALES:
        blocks = random_blocks(t)
        out += record(t, blocks, dequantize(blocks.reshape(1, -1), t))
    (HERE / "dequant.bin").write_bytes(out)
    out = b""
    for t in (T.F16, T.BF16, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1, T.Q8_0, T.MXFP4):
        block, size = GGML_QUANT_SIZES[t]
        values = rng.normal(0, 1, (1, 128)).astype(np.float32)
        values[0, 32:64] *= 1e-3
        values[0, 64:96] = 0
        blocks = np.ascontiguousarray(quantize(values, t)).view(np.uint8).reshape(-1, size)
        assert len(blocks) == 128 // block
        out += record(t, blocks, values)
    (HERE / "quantize.bin").write_bytes(out)


if __name__ == "__main__":
    main()
