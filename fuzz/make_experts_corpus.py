#!/usr/bin/env python3
"""Writes the seeds of the routing trace and expert pack fuzzers to fuzz/corpus."""
import pathlib
import struct

HERE = pathlib.Path(__file__).resolve().parent / "corpus"


def trace():
    out = b"METETRAC" + struct.pack("<IIIIQ", 1, 2, 8, 2, 4096)
    out += struct.pack("<I", 1)
    out += struct.pack("<III4H4f", 2, 0, 2, 3, 1, 7, 0, .75, .25, .5, .5)
    out += struct.pack("<IIIHHiHHi", 4, 0, 2, 3, 1, -1, 1, 0, 0)
    out += struct.pack("<IIIHHI", 3, 1, 1, 6, 0, 2)
    return out


def pack(layers=1, experts=2):
    out = b"METEPACK" + struct.pack("<IIII", 1, layers, experts, 0)
    out += struct.pack("<QQQQQ", 256, 96, 1234, 8192, 4096)
    for _ in range(layers):
        out += struct.pack("<IIIIQ", 2, 2, 8, 0, 5000)
    out += struct.pack(f"<{layers * experts}Q", *range(1, layers * experts + 1))
    return out + bytes(8)  # the fuzzer makes the checksum right


if __name__ == "__main__":
    for name, data in (("routing_trace/all_records", trace()), ("expert_pack/two_records", pack()),
                       ("expert_pack/two_layers", pack(2, 4))):
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
