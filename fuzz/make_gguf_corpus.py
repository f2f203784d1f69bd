#!/usr/bin/env python3
"""Writes the seed files of fuzz_gguf into corpus/gguf beside this script: small valid files that between them use
every value type, tensor type and version, and a few broken ones."""
import pathlib
import struct

OUT = pathlib.Path(__file__).resolve().parent / "corpus" / "gguf"
# type id -> (elements, bytes) of a block
TYPES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
         11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2),
         39: (32, 17)}
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def scalar(key, kind, value):
    body = string(value) if kind == 8 else struct.pack("<" + SCALARS[kind], value)
    return string(key) + struct.pack("<i", kind) + body


def array(key, kind, values):
    body = b"".join(string(v) if kind == 8 else struct.pack("<" + SCALARS[kind], v) for v in values)
    return string(key) + struct.pack("<iiQ", 9, kind, len(values)) + body


def model(pairs, tensors, version=3, alignment=32):
    infos, data = b"", b""
    for name, dims, kind in tensors:
        block, size = TYPES[kind]
        count = 1
        for d in dims:
            count *= d
        infos += string(name) + struct.pack(f"<I{len(dims)}qiQ", len(dims), *dims, kind, len(data))
        data += bytes(i % 251 for i in range(count // block * size))
        data += bytes(-len(data) % alignment)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs)) + b"".join(pairs) + infos
    return head + bytes(-len(head) % alignment) + data


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    scalars = [scalar(f"s{k}", k, True if k == 7 else 1) for k in SCALARS] + [scalar("s8", 8, "text")]
    arrays = [array(f"a{k}", k, [True, False] if k == 7 else [1, 2, 3]) for k in SCALARS]
    arrays += [array("a8", 8, ["", "x", "hello"]), array("empty", 5, [])]
    arch = scalar("general.architecture", 8, "llama")
    files = {
        "empty_model": model([], []),
        "scalars": model(scalars, []),
        "arrays": model(arrays, []),
        "version2": model([arch], [("t", [4], 0)], version=2),
        "types": model([arch], [(f"t{k}", [TYPES[k][0]], k) for k in TYPES]),
        "shapes": model([arch], [("one", [5], 1), ("two", [32, 2], 2), ("three", [2, 3, 4], 30),
                                 ("four", [1, 2, 1, 2], 0)]),
        "alignment": model([scalar("general.alignment", 4, 64)], [("a", [1], 0), ("b", [1], 0)], alignment=64),
        "split": model([scalar("split.no", 2, 0), scalar("split.count", 2, 1), scalar("split.tensors.count", 5, 1)],
                       [("t", [1], 0)]),
        "big_endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "truncated": model([arch], [("t", [64], 0)])[:-200],
        "duplicate": model([arch, arch], []),
    }
    for name, content in files.items():
        (OUT / f"{name}.gguf").write_bytes(content)


if __name__ == "__main__":
    main()
