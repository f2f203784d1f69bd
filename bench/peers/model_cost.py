"""What one token of a GGUF model costs at least: bytes of weights read, parameters multiplied."""
import os
import re
import struct

# GGUF value type id: struct layout.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
# GGUF type id: (weights, bytes) of a block.
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 20: (32, 18), 23: (256, 136), 30: (1, 2),
          39: (32, 17)}


def read_model_cost(path):
    """{"file_bytes", "decode_bytes", "prefill_parameters", "context"} of a single-file GGUF.

    decode_bytes: every tensor once, except an input embedding that is not the output matrix too (one row is read) and
    experts that the router leaves out. prefill_parameters: the matrices inside the layers, at the experts used;
    prefill computes logits for one token only.
    """
    with open(path, "rb") as file:
        def unpack(layout):
            return struct.unpack("<" + layout, file.read(struct.calcsize("<" + layout)))[0]

        def text():
            return file.read(unpack("Q")).decode("utf-8", "replace")

        def value(kind):
            if kind == 8:
                return text()
            if kind == 9:
                element, count = unpack("I"), unpack("Q")
                if element in SCALARS:
                    file.seek(struct.calcsize(SCALARS[element]) * count, os.SEEK_CUR)
                else:
                    for _ in range(count):
                        value(element)
                return None
            return unpack(SCALARS[kind])

        if file.read(4) != b"GGUF":
            raise SystemExit(f"{path} is no GGUF file")
        unpack("I")
        tensors, pairs = unpack("Q"), unpack("Q")
        metadata = {}
        for _ in range(pairs):
            key = text()
            metadata[key] = value(unpack("I"))
        table = {}
        for _ in range(tensors):
            name = text()
            sizes = [unpack("Q") for _ in range(unpack("I"))]
            kind = unpack("I")
            unpack("Q")
            count = 1
            for size in sizes:
                count *= size
            weights, block = BLOCKS[kind]
            table[name] = (count, count // weights * block, len(sizes))

    arch = metadata["general.architecture"]
    experts = metadata.get(arch + ".expert_count") or 1
    used = (metadata.get(arch + ".expert_used_count") or 1) / experts
    decode, parameters = 0.0, 0.0
    for name, (count, size, dimensions) in table.items():
        share = used if re.search(r"_exps\.", name) else 1.0
        if name != "token_embd.weight" or "output.weight" not in table:
            decode += size * share
        if name.startswith("blk.") and dimensions > 1:
            parameters += count * share
    return {"file_bytes": os.path.getsize(path), "decode_bytes": round(decode),
            "prefill_parameters": round(parameters), "context": metadata[arch + ".context_length"]}
