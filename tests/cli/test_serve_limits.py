"""`mete serve` over loopback: bounds, keys, slow and lost clients, signals, loading and draining."""
import concurrent.futures
import json
import os
import signal
import socket
import time
import unittest

from harness import TemporaryDirectory, mete
from serving import RUNNING, Server, options


class Limits(unittest.TestCase):
    def test_body_limit(self):
        with Server(*options(), "--max-body", 1) as server:
            head = b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n"
            self.assertEqual(server.raw(head, timeout=5)[:12], b"HTTP/1.1 413")
            chunk = b"10000\r\n" + b"a" * 0x10000 + b"\r\n"
            data = b"POST /completion HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 20
            self.assertEqual(server.raw(data, timeout=5)[:12], b"HTTP/1.1 413")
            self.assertEqual(server.get("/health")[0], 200)

    def test_slow_senders_are_cut_off(self):
        with Server(*options(), "--timeout", 1) as server:
            body = b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
            begin = time.monotonic()
            self.assertEqual(server.raw(body, timeout=20)[:12], b"HTTP/1.1 408")
            self.assertLess(time.monotonic() - begin, 15)
            server.wait_metric("mete_connections", 1)  # the one that asks

    def test_slow_headers_are_cut_off(self):
        with Server(*options()) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.settimeout(0.2)
            begin, out = time.monotonic(), b""
            for byte in b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 100:  # each in time, all of them never
                try:
                    connection.sendall(bytes([byte]))
                    out += connection.recv(4096)
                    break
                except TimeoutError:
                    pass
                except ConnectionError:
                    break
            self.assertLess(time.monotonic() - begin, 30)
            self.assertIn(out[:12], (b"HTTP/1.1 408", b""))
            server.wait_metric("mete_connections", 1)

    def test_slow_readers_are_cut_off(self):
        with Server(*options(), "--timeout", 1) as server, socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            body = json.dumps({"content": "hello there " * 100000, "with_pieces": True}).encode()
            connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            server.wait_for("request", path="/tokenize", status=200)
            server.wait_metric("mete_connections", 1)  # the one that asks
            self.assertEqual(server.get("/health")[0], 200)

    def test_bound_over_all_bodies(self):
        def part(server):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=10)
            connection.sendall(b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: 1048576\r\n\r\n{")
            return connection

        with Server(*options(), "--max-body", 1) as server:
            connections = [part(server) for _ in range(4)]
            server.wait_metric("mete_connections", 5)
            with part(server) as fifth:
                self.assertEqual(fifth.recv(12), b"HTTP/1.1 503")
            self.assertEqual(server.get("/health")[0], 200)  # no body
            connections[0].close()
            server.wait_metric("mete_connections", 4)
            self.assertEqual(server.post("/completion", {"prompt": "a", "n_predict": 1})[0], 200)
            for connection in connections:
                connection.close()

    def test_keys(self):
        with Server(*options(), "--api-key", "sk-one,sk-two") as server:
            body = {"prompt": "a", "n_predict": 1}
            for headers in ({}, {"Authorization": "Bearer sk-on"}, {"Authorization": "Bearer "}, {"X-Api-Key": "sk-three"},
                            {"Authorization": "Basic sk-one"}):
                status, data = server.post("/completion", body, headers)
                self.assertEqual((status, data["error"]["type"]), (401, "authentication_error"), headers)
            for headers in ({"Authorization": "Bearer sk-one"}, {"X-Api-Key": "sk-two"}):
                self.assertEqual(server.post("/completion", body, headers)[0], 200)
            self.assertEqual(server.get("/health")[0], 200)
            for path in ("/metrics", "/slots", "/props", "/v1/models"):
                self.assertEqual(server.get(path)[0], 401, path)

    def test_cors_by_flag(self):
        with Server(*options(), "--cors-origins", "http://a.example") as server:
            status, headers, _ = server.request("OPTIONS", "/completion", headers={"Origin": "http://a.example"})
            self.assertEqual((status, headers["Access-Control-Allow-Origin"]), (204, "http://a.example"))
            status, headers, _ = server.request("OPTIONS", "/completion", headers={"Origin": "http://b.example"})
            self.assertNotIn("Access-Control-Allow-Origin", headers)

    def test_llama_metrics_by_flag(self):
        with Server(*options(), "--llama-metrics") as server:
            for _ in range(2):  # the second finds the first one's prompt
                server.ok("/completion", {"prompt": "hello " * 20, "n_predict": 4, "ignore_eos": True})
            _, headers, body = server.request("GET", "/metrics")
            values = dict(line.split(" ") for line in body.decode().splitlines() if line.startswith("llamacpp:"))
            self.assertEqual(values["llamacpp:tokens_predicted_total"], "8")
            self.assertGreater(int(values["llamacpp:prompt_tokens_cached_total"]), 0)
            self.assertLess(abs(int(headers["Process-Start-Time-Unix"]) - time.time()), 600)

    def test_queue_bound_then_429(self):
        with Server(*options(parallel=1), "--max-queue", 1) as server:
            long = {"prompt": "hello", "n_predict": 200, "ignore_eos": True}
            with concurrent.futures.ThreadPoolExecutor(12) as pool:
                results = list(pool.map(lambda _: server.request("POST", "/completion", long), range(12)))
            statuses = sorted(r[0] for r in results)
            self.assertEqual(set(statuses), {200, 429})
            refused = next(r for r in results if r[0] == 429)
            self.assertEqual(refused[1]["Retry-After"], "1")
            self.assertEqual(json.loads(refused[2])["error"]["code"], "queue_full")
            self.assertEqual(server.post("/completion", {**long, "n": 3})[0], 429)
            self.assertEqual(server.post("/completion", {**long, "n_predict": 1})[0], 200)

    def test_deadline(self):
        with Server(*options(4096)) as server:
            status, data = server.post("/completion", {"prompt": "hello", "n_predict": 4000, "ignore_eos": True,
                                                       "deadline_ms": 100})
            if status == 200:
                self.assertEqual(data["mete"]["receipt"]["choices"][0]["finish_reason"], "deadline")
                self.assertLess(data["tokens_predicted"], 4000)
            else:
                self.assertEqual((status, data["error"]["code"]), (504, "deadline_exceeded"))

    def test_usage_errors(self):
        for args, text in ((("--host", "0.0.0.0"), "--allow-unauthenticated"), (("--port", "70000"), "--port"),
                           (("--max-connections", "1000000"), "open files"), (("-np", "4000"), "--parallel"),
                           (("--host", "no.such.host.invalid"), "--host")):
            code, _, err = mete("serve", "-m", os.environ.get("METE_TINY_MODEL", "build/release/tests/tiny.gguf"), *args)
            self.assertEqual(code, 2, err)
            self.assertIn(text, err)
        code, _, err = mete("serve", "-m", __file__, "--port", 0)
        self.assertEqual(code, 3, err)


class Lifetime(unittest.TestCase):
    LONG = {"prompt": "hello", "n_predict": 100000, "ignore_eos": True}
    OPTIONS = (*options(100000), "--kv-tokens", 200000)

    def test_disconnect_cancels_streamed_and_whole(self):
        with Server(*self.OPTIONS) as server:
            for stream in (True, False):
                connection = socket.create_connection(("127.0.0.1", server.port))
                body = json.dumps({**self.LONG, "stream": stream}).encode()
                connection.sendall(b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                server.wait_metric(RUNNING, 1)
                connection.close()
                server.wait_metric(RUNNING, 0)
                self.assertEqual(server.metric("vllm:kv_cache_usage_perc"), 0)
            server.wait_for("request", status=499)

    def test_503_while_loading(self):
        with TemporaryDirectory() as folder:
            path = os.path.join(folder, "cache")
            os.mkfifo(path)  # loading waits for someone to write
            with Server(*options(), "--prefix-cache-file", path, "--api-key", "k", wait=False) as server:
                key = {"Authorization": "Bearer k"}
                status, data = server.get("/health")
                self.assertEqual((status, data["error"]["code"]), (503, "loading"))
                self.assertEqual(server.request("GET", "/")[0], 200)
                for path_503 in ("/v1/models", "/props", "/slots", "/metrics"):
                    self.assertEqual(server.get(path_503, key)[0], 503)
                for path_503 in ("/completion", "/v1/chat/completions", "/tokenize", "/v1/embeddings"):
                    self.assertEqual(server.post(path_503, {"prompt": "a"}, key)[0], 503)
                self.assertEqual(server.post("/completion", {"prompt": "a"})[0], 401)
                self.assertEqual(server.get("/nothing")[0], 404)
                with open(path, "wb"):
                    pass
                server.wait_for("ready")
                self.assertEqual(server.get("/health")[0], 200)
                self.assertEqual(server.post("/completion", {"prompt": "a", "n_predict": 1}, key)[0], 200)

    def test_sigusr1_rereads_the_memory_file(self):
        with TemporaryDirectory() as folder:
            path = os.path.join(folder, "memory")

            def change(text, expected):
                with open(path, "w") as file:
                    file.write(text)
                server.process.send_signal(signal.SIGUSR1)
                deadline = time.monotonic() + 20
                while not [x for x in server.log if x["event"] == "memory" and expected in x.get("message", "")]:
                    self.assertLess(time.monotonic(), deadline, server.log)
                    time.sleep(0.02)

            with open(path, "w") as file:
                file.write("1GiB")
            with Server(*options(), "--memory-file", path) as server:
                before = server.ok("/completion", {"prompt": "hello", "n_predict": 8, "ignore_eos": True})
                change("2GiB", f"is now {2 << 30} bytes")
                change("1MiB", "the ceiling stays: ")
                change("lots", "found 'lots'")
                self.assertEqual(server.get("/props")[1]["mete"]["memory"]["ceiling"], 2 << 30)
                after = server.ok("/completion", {"prompt": "hello", "n_predict": 8, "ignore_eos": True})
                self.assertEqual(before["content"], after["content"])
        with Server(*options()) as server:
            server.process.send_signal(signal.SIGUSR1)
            self.assertIn("--memory-file", server.wait_for("memory")["message"])

    def test_sigusr2_saves_the_prefix_cache(self):
        body = {"prompt": "hello there " * 40, "n_predict": 8, "ignore_eos": True}
        with TemporaryDirectory() as folder:
            path = os.path.join(folder, "cache")
            with Server(*options(), "--prefix-cache-file", path) as server:
                first = server.ok("/completion", body)
                server.process.send_signal(signal.SIGUSR2)
                self.assertIn("saved", server.wait_for("prefix cache")["message"])
                self.assertEqual(server.ok("/completion", body)["content"], first["content"])
            with Server(*options(), "--prefix-cache-file", path) as server:  # the other one was killed
                second = server.ok("/completion", body)
            self.assertGreater(second["timings"]["cache_n"], 32)
            self.assertEqual(second["content"], first["content"])

    def test_a_better_request_takes_the_place_of_a_worse_one(self):
        with Server(*options(4096, parallel=1)) as server:
            worse = {"prompt": "hello", "n_predict": 1000, "ignore_eos": True, "priority": 1}
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(server.ok, "/completion", worse)
                server.wait_metric(RUNNING, 1)
                while server.metric("vllm:generation_tokens_total") < 2 and not answer.done():
                    time.sleep(0.01)
                server.ok("/completion", {"prompt": "there", "n_predict": 2, "ignore_eos": True})
                self.assertFalse(answer.done())
                whole = answer.result()
            self.assertEqual(whole["mete"]["receipt"]["choices"][0]["preemptions"], 1)
            alone = server.ok("/completion", {**worse, "cache_prompt": False})
            self.assertEqual(alone["content"], whole["content"])
            self.assertEqual(alone["mete"]["receipt"]["choices"][0]["logits_hash"],
                             whole["mete"]["receipt"]["choices"][0]["logits_hash"])

    def test_drain_finishes_what_runs(self):
        with Server(*options(2048)) as server:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(server.post, "/completion", {**self.LONG, "n_predict": 1500})
                server.wait_metric(RUNNING, 1)
                server.process.send_signal(signal.SIGTERM)
                server.wait_for("draining")
                try:
                    self.assertEqual(server.get("/health")[0], 503)
                    self.assertEqual(server.post("/completion", self.LONG)[0], 503)
                except (ConnectionError, OSError):
                    pass  # it had ended already
                status, data = answer.result()
            self.assertEqual((status, data["tokens_predicted"]), (200, 1500))
            self.assertEqual(server.process.wait(timeout=20), 0)

    def test_prefix_cache_outlives_the_process_exactly_or_not_at_all(self):
        body = {"prompt": "hello there " * 40, "n_predict": 8, "ignore_eos": True}
        with TemporaryDirectory() as folder:
            path = os.path.join(folder, "cache")
            answers, notes = [], []
            for run in range(3):
                if run == 2:
                    with open(path, "r+b") as file:
                        file.seek(os.path.getsize(path) // 2)
                        byte = file.read(1)
                        file.seek(-1, os.SEEK_CUR)
                        file.write(bytes([byte[0] ^ 1]))
                with Server(*options(), "--prefix-cache-file", path) as server:
                    notes += [line["message"] for line in server.log if line["event"] == "prefix cache"]
                    answers.append(server.ok("/completion", body))
                    server.process.send_signal(signal.SIGTERM)
                    self.assertEqual(server.process.wait(timeout=20), 0)
        cached = [a["timings"]["cache_n"] for a in answers]
        self.assertEqual((cached[0], cached[2]), (0, 0))
        self.assertGreater(cached[1], 32)
        self.assertEqual([a["content"] for a in answers], [answers[0]["content"]] * 3)
        hashes = [a["mete"]["receipt"]["choices"][0]["logits_hash"] for a in answers]
        self.assertEqual(hashes, [hashes[0]] * 3)
        self.assertIn("restored", notes[0])
        self.assertIn("not restored", notes[1])

    def test_drain_timeout_ends_what_does_not(self):
        with Server(*self.OPTIONS, "--drain-timeout", 0.5) as server:
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                answer = pool.submit(server.request, "POST", "/completion", self.LONG)
                server.wait_metric(RUNNING, 1)
                server.process.send_signal(signal.SIGTERM)
                self.assertEqual(server.process.wait(timeout=20), 0)
                self.assertIsInstance(answer.exception(), (ConnectionError, OSError))
            server.wait_for("drain timeout")

if __name__ == "__main__":
    unittest.main()
