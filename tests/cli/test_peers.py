"""The load generator and the peer scripts' arithmetic, against a server of canned answers."""
import asyncio
import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.path.join(HERE, "..", "..", "bench", "peers")
sys.path.insert(0, PEERS)

import engines  # noqa: E402
import load  # noqa: E402
import tables  # noqa: E402

EVENTS = [b'data: {"choices": [{"text": "a", "finish_reason": null}]}\n\n',
          b'data: {"choices": [{"text": "b", "finish_reason": null}]}\r\n\r\n',
          b'data: {"choices": [{"text": "", "finish_reason": "length"}], "usage": {"completion_tokens": 5}}\n\n',
          b"data: [DONE]\n\n"]


async def answer(reader, writer, how):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int([line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")][0].split(b":")[1])
    await reader.readexactly(length)
    if how == "refused":
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 7\r\n\r\nno room")
    elif how == "cut":
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + EVENTS[0])
    elif how == "error":
        writer.write(b'HTTP/1.1 200 OK\r\n\r\ndata: {"error": {"message": "broken"}}\n\n')
    elif how == "chunked":
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        stream = b"".join(EVENTS)
        for i in range(0, len(stream), 17):  # events end within chunks
            piece = stream[i:i + 17]
            writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        writer.write(b"0\r\n\r\n")
    else:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(EVENTS))
    await writer.drain()
    writer.close()


def against(how, clients=2, requests=3):
    """Figures of the load generator against a server that answers in one way."""
    async def both():
        server = await asyncio.start_server(lambda r, w: answer(r, w, how), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        arguments = load.parse_arguments(["--url", f"http://127.0.0.1:{port}", "--text", "-", "--clients", str(clients)])
        done, failures = await load.run(arguments, ["x"] * requests)
        server.close()
        return load.summary(done, failures, clients)
    return asyncio.run(both())


class Load(unittest.TestCase):
    def test_counts_tokens_of_plain_and_chunked_streams(self):
        for how in ("plain", "chunked"):
            figures = against(how)
            self.assertEqual((figures["requests"], figures["failures"]), (3, []), how)
            self.assertEqual(figures["tokens"], 15)  # usage counts, not pieces of text
            self.assertGreater(figures["tokens_per_s"], 0)
            self.assertGreater(figures["ttft_s"]["p50"], 0)

    def test_failures_are_named(self):
        for how, fragment in (("refused", "no room"), ("cut", "without a finish_reason"), ("error", "broken")):
            figures = against(how, clients=1, requests=2)
            self.assertEqual(figures["requests"], 0)
            self.assertEqual(len(figures["failures"]), 2)
            self.assertIn(fragment, figures["failures"][0])

    def test_figures_from_known_times(self):
        done = [{"start": 0.0, "times": [1.0, 2.0, 4.0], "tokens": 3, "end": 4.0},
                {"start": 0.0, "times": [2.0, 3.0, 5.0], "tokens": 3, "end": 5.0}]
        figures = load.summary(done, [], 2)
        self.assertEqual((figures["wall_s"], figures["tokens"], figures["tokens_per_s"]), (5.0, 6, 1.2))
        self.assertEqual(figures["busy_pieces_per_s"], 2.0)  # 2.0, 2.0, 3.0, 4.0 between 2 and 4
        self.assertEqual(figures["ttft_s"]["p50"], 1.0)
        self.assertEqual(figures["ttft_s"]["p99"], 2.0)
        self.assertEqual(figures["between_tokens_s"]["mean"], 1.5)

    def test_quantiles_and_prompts(self):
        self.assertEqual(load.quantile(list(range(1, 101)), 0.99), 99)
        self.assertEqual(load.quantile([5, 1, 3], 0.5), 3)
        self.assertEqual(load.quantile([7], 0.99), 7)
        self.assertIsNone(load.quantile([], 0.5))
        texts = load.prompts(" ".join(map(str, range(100))), 4, 10)
        self.assertEqual([len(t.split()) for t in texts], [10] * 4)
        self.assertEqual(len(set(texts)), 4)
        with self.assertRaises(SystemExit):
            load.prompts("too short", 1, 10)


class Peers(unittest.TestCase):
    def test_scripts_say_what_is_missing(self):
        for script, rest in (("run_peers.py", ["--ik", "/nonexistent"]), ("run_servers.py", ["--mete", "/nonexistent"])):
            done = subprocess.run([sys.executable, os.path.join(PEERS, script), "-m", "x.gguf", "--text", "x", "--name",
                                   "none", *rest], capture_output=True, text=True,
                                  env={k: v for k, v in os.environ.items() if not k.startswith("METE_")})
            self.assertEqual(done.returncode, 1, script)
            self.assertIn("missing: ", done.stderr)
            self.assertIn("/nonexistent", done.stderr)
            self.assertIn("no folder given", done.stderr)

    def test_quartiles_and_table(self):
        self.assertEqual(engines.quartiles([1, 2, 3, 4, 5]), [2, 4])
        self.assertEqual(engines.quartiles([3]), [3, 3])
        figures = lambda speed: {"tokens_per_s": speed, "ttft_s": {"p50": 0.5, "p99": 0.5}}
        table = tables.servers({"mete": [figures(20), figures(30)], "llama.cpp": [figures(10), figures(10)]})
        self.assertIn("| tokens/s | 25.0 [22.5, 27.5] | 10.0 [10.0, 10.0] | 2.50 |", table)
        self.assertIn("| peak memory, MB | - | - | - |", table)


if __name__ == "__main__":
    unittest.main()
