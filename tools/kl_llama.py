#!/usr/bin/env python3
"""Mean KL divergence of llama.cpp's logits, and of another engine's, to a reference of the same GGUF file.

    tools/kl_llama.py -m MODEL.gguf --reference REF.bin [--other OTHER.bin] [-t 2]
    tools/kl_llama.py -m MODEL.gguf --dump OUT.bin -f TEXT [-c 512] [--chunks 8]

The reference holds logits and the tokens they belong to; llama.cpp runs on the same tokens. For each scored position
KL(reference || x) = sum over the vocabulary of p_ref (log p_ref - log p_x), in nats, in double. --dump writes
llama.cpp's own logits in the same format. Needs numpy and the llama.cpp binding (see tools/llama_peer.py).

Logits file, little-endian, no padding:
    char     magic[8] = "METELGT1"
    uint32   n_vocab, n_rows, n_ctx, n_chunks     n_rows = n_chunks * (n_ctx - 1 - n_ctx / 2)
    uint32   tokens[n_chunks * n_ctx]             as fed to the model (BOS at the start of a window where one is added)
    float32  logits[n_rows][n_vocab]              window by window, positions n_ctx / 2 .. n_ctx - 2 of each
"""
import argparse
import os
import sys

import numpy as np

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

MAGIC = b"METELGT1"


class LogitsFile:
    def __init__(self, path):
        with open(path, "rb") as file:
            if file.read(8) != MAGIC:
                raise SystemExit(f"{path}: no logits file (magic is not {MAGIC.decode()})")
            self.n_vocab, n_rows, self.n_ctx, self.n_chunks = (int(x) for x in np.fromfile(file, "<u4", 4))
            self.tokens = np.fromfile(file, "<u4", self.n_ctx * self.n_chunks).reshape(self.n_chunks, self.n_ctx)
        self.scored = self.n_ctx - 1 - self.n_ctx // 2
        start = 24 + 4 * self.tokens.size
        expected = start + 4 * n_rows * self.n_vocab
        if n_rows != self.n_chunks * self.scored or os.path.getsize(path) != expected:
            raise SystemExit(f"{path}: {n_rows} rows, {os.path.getsize(path)} bytes; the header asks for "
                             f"{self.n_chunks * self.scored} rows, {expected} bytes")
        self.rows = np.memmap(path, "<f4", "r", start, (n_rows, self.n_vocab))

    def window(self, chunk):
        return self.rows[chunk * self.scored:(chunk + 1) * self.scored]


class Divergence:
    """Collects, per scored position, the KL to the reference and whether the best token is the same."""

    def __init__(self):
        self.kl, self.same_top, self.nll = [], [], []

    def add(self, reference, logits, targets):
        from llama_peer import log_softmax
        for row, (ref, other) in enumerate(zip(reference, logits)):
            log_p, log_q = log_softmax(ref), log_softmax(other)
            self.kl.append(float(np.sum(np.exp(log_p) * (log_p - log_q))))
            self.same_top.append(int(np.argmax(ref) == np.argmax(other)))
            self.nll.append(-log_q[targets[row]])

    def line(self, name):
        kl = np.array(self.kl)
        error = kl.std(ddof=1) / np.sqrt(kl.size)
        return (f"{name:10s} mean KL {kl.mean():.6e} +- {error:.1e}  median {np.median(kl):.3e}  "
                f"99% {np.quantile(kl, .99):.3e}  max {kl.max():.3e}  same top {100 * np.mean(self.same_top):.2f} %  "
                f"ppl {np.exp(np.mean(self.nll)):.4f}")


def dump(arguments):
    from llama_peer import LlamaPeer, text_windows
    peer = LlamaPeer(arguments.model, arguments.n_ctx, arguments.threads)
    with open(arguments.file, encoding="utf-8") as file:
        windows = text_windows(peer, file.read(), arguments.n_ctx, arguments.chunks)
    scored = arguments.n_ctx - 1 - arguments.n_ctx // 2
    with open(arguments.dump, "wb") as out:
        out.write(MAGIC)
        np.array([peer.n_vocab, scored * len(windows), arguments.n_ctx, len(windows)], "<u4").tofile(out)
        np.array(windows, "<u4").tofile(out)
        for window in windows:
            peer.window_logits(window).astype("<f4").tofile(out)


def compare(arguments):
    reference = LogitsFile(arguments.reference)
    other = LogitsFile(arguments.other) if arguments.other else None
    if other and (other.n_vocab != reference.n_vocab or not np.array_equal(other.tokens, reference.tokens)):
        raise SystemExit(f"{arguments.other}: vocabulary or tokens differ from those of {arguments.reference}")
    from llama_peer import FLAGS, LlamaPeer
    peer = LlamaPeer(arguments.model, reference.n_ctx, arguments.threads)
    if peer.n_vocab != reference.n_vocab:
        raise SystemExit(f"{arguments.reference}: n_vocab {reference.n_vocab}, the model has {peer.n_vocab}")
    results = {"reference": Divergence(), "llama.cpp": Divergence(), "other": Divergence()}
    for chunk in range(reference.n_chunks):
        tokens = [int(t) for t in reference.tokens[chunk]]
        targets = tokens[reference.n_ctx // 2 + 1:]
        expected = reference.window(chunk)
        results["reference"].add(expected, expected, targets)
        results["llama.cpp"].add(expected, peer.window_logits(tokens), targets)
        if other:
            results["other"].add(expected, other.window(chunk), targets)
        print(f"window {chunk + 1} of {reference.n_chunks}", file=sys.stderr)
    print(f"{os.path.basename(arguments.model)}: {reference.n_chunks} windows of {reference.n_ctx} tokens, "
          f"{len(results['llama.cpp'].kl)} positions; llama.cpp: {FLAGS}")
    for name, result in results.items():
        if result.kl:
            print(result.line(name))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--reference", metavar="FILE")
    parser.add_argument("--other", metavar="FILE", help="logits of the engine to compare with llama.cpp")
    parser.add_argument("--dump", metavar="FILE", help="write llama.cpp's logits instead of comparing")
    parser.add_argument("-f", "--file", metavar="TEXT", help="text for --dump")
    parser.add_argument("-c", "--n-ctx", type=int, default=512)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("-t", "--threads", type=int, default=2)
    arguments = parser.parse_args()
    if arguments.dump and arguments.file and not arguments.reference:
        dump(arguments)
    elif arguments.reference and not arguments.dump:
        compare(arguments)
    else:
        parser.error("give --reference FILE, or --dump FILE with -f TEXT")


if __name__ == "__main__":
    main()
