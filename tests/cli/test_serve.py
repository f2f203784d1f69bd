"""`mete serve` over loopback: every endpoint, streams equal to whole answers, refusals, cancelling, draining."""
import base64
import concurrent.futures
import json
import os
import re
import signal
import socket
import struct
import time
import unittest

from harness import TemporaryDirectory, mete
from serving import Server



def options(context=256, parallel=4):
    return "-c", context, "-np", parallel, "--chat-template", "chatml", "--temp", "0"


HI = [{"role": "user", "content": "hello there"}]
RUNNING, WAITING = "vllm:num_requests_running", "vllm:num_requests_waiting"


class Serve(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(*options(), "--alias", "tiny,other")

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__()


class Endpoints(Serve):
    def test_health_models_props_slots_page(self):
        self.assertEqual(self.server.get("/health"), (200, {"status": "ok"}))
        status, models = self.server.get("/v1/models")
        self.assertEqual([m["id"] for m in models["data"]], ["tiny"])
        self.assertEqual(models["data"][0]["max_model_len"], 256)
        props = self.server.get("/props")[1]
        self.assertEqual(props["total_slots"], 4)
        self.assertEqual(props["default_generation_settings"]["params"]["temperature"], 0)
        slots = self.server.get("/slots")[1]
        self.assertEqual([s["is_processing"] for s in slots], [False] * 4)
        status, headers, body = self.server.request("GET", "/")
        self.assertEqual((status, headers["Content-Type"]), (200, "text/html; charset=utf-8"))
        self.assertIn(b"<!doctype html>", body)

    def test_tokenize_detokenize_template(self):
        tokens = self.server.ok("/tokenize", {"content": "hello there"})["tokens"]
        self.assertEqual(self.server.ok("/detokenize", {"tokens": tokens})["content"].strip(), "hello there")
        pieces = self.server.ok("/tokenize", {"content": "hello there", "with_pieces": True})["tokens"]
        self.assertEqual([p["id"] for p in pieces], tokens)
        prompt = self.server.ok("/apply-template", {"messages": HI})["prompt"]
        self.assertEqual(prompt, "<|im_start|>user\nhello there<|im_end|>\n<|im_start|>assistant\n")
        count = self.server.ok("/v1/messages/count_tokens", {"messages": HI})
        whole = self.server.ok("/v1/chat/completions", {"messages": HI, "max_tokens": 1})
        self.assertEqual(count, {"input_tokens": whole["usage"]["prompt_tokens"]})

    def test_the_ceiling_needs_a_key_and_never_goes_below_the_floor(self):
        self.assertEqual(self.server.post("/memory", {"memory": "1GiB"})[0], 403)
        with Server(*options(), "--memory", "1GiB", "--api-key", "k") as server:
            key = {"Authorization": "Bearer k"}
            self.assertEqual(server.post("/memory", {"memory": "2GiB"})[0], 401)
            status, answer = server.post("/memory", {"memory": "2GiB"}, key)
            self.assertEqual((status, answer["memory"]), (200, 2 << 30))
            self.assertEqual(server.post("/memory", {"memory": "1MiB"}, key)[0], 400)
            self.assertEqual(server.post("/memory", {"memory": "lots"}, key)[0], 400)
            self.assertEqual(server.post("/memory", {}, key)[0], 400)
            body = {"prompt": "a", "max_tokens": 2}
            self.assertEqual(server.post("/v1/completions", body, key)[0], 200)
            self.assertEqual(server.get("/props", key)[1]["mete"]["memory"]["ceiling"], 2 << 30)

    def test_a_forced_tool_call_fits_its_schema(self):
        tools = [{"type": "function", "function": {"name": name, "parameters": {
            "type": "object", "properties": {"unit": {"enum": ["km", "mile"]}, "n": {"$ref": "#/$defs/n"}},
            "required": ["unit", "n"], "$defs": {"n": {"type": "integer", "minimum": 3, "maximum": 12}}}}}
            for name in ("near", "far")]
        body = {"messages": HI, "tools": tools, "temperature": 1, "max_tokens": 100}
        for choice, names in (("required", {"near", "far"}), ({"type": "function", "function": {"name": "far"}}, {"far"})):
            whole = self.server.ok("/v1/chat/completions", {**body, "tool_choice": choice})["choices"][0]
            self.assertEqual(whole["finish_reason"], "tool_calls")
            [call] = whole["message"]["tool_calls"]
            self.assertIn(call["function"]["name"], names)
            arguments = json.loads(call["function"]["arguments"])
            self.assertIn(arguments["unit"], ("km", "mile"))
            self.assertIn(arguments["n"], range(3, 13))
            events = self.server.stream("/v1/chat/completions", {**body, "tool_choice": choice})
            calls = [c for e in events[:-1] for x in e[1]["choices"] for c in x["delta"].get("tool_calls", [])]
            self.assertEqual([c["function"] for c in calls], [call["function"]])
        status, error = self.server.post("/v1/chat/completions", {
            **body, "tool_choice": "required", "response_format": {"type": "json_object"}})
        self.assertEqual((status, error["error"]["param"]), (400, "tool_choice"))

    def test_chat_stream_is_the_whole_answer(self):
        body = {"model": "other", "messages": HI, "max_tokens": 12, "ignore_eos": True, "n": 2, "temperature": 100,
                "min_p": 0, "top_p": 1, "cache_prompt": False, "logprobs": True, "top_logprobs": 3}
        whole = self.server.ok("/v1/chat/completions", body)
        events = self.server.stream("/v1/chat/completions", {**body, "stream_options": {"include_usage": True}})
        self.assertEqual(events[-1][1], "[DONE]")
        chunks = [e[1] for e in events[:-1]]
        self.assertEqual(chunks[-1]["usage"], whole["usage"])
        self.assertEqual(whole["usage"]["completion_tokens"], 24)
        texts, logprobs, reasons = ["", ""], [[], []], [None, None]
        for chunk in chunks[:-1]:
            [choice] = chunk["choices"]
            i = choice["index"]
            texts[i] += choice["delta"].get("content") or ""
            logprobs[i] += (choice["logprobs"] or {}).get("content", [])
            reasons[i] = choice["finish_reason"] or reasons[i]
        for i, choice in enumerate(whole["choices"]):
            self.assertEqual(texts[i], choice["message"]["content"])
            self.assertEqual(logprobs[i], choice["logprobs"]["content"])
            self.assertEqual(len(logprobs[i]), 12)
            self.assertEqual([len(t["top_logprobs"]) for t in logprobs[i]], [3] * 12)
            self.assertEqual(reasons[i], "length")
        self.assertNotEqual(texts[0], texts[1])
        hashes = [c["logits_hash"] for c in whole["mete"]["receipt"]["choices"]]
        self.assertEqual(hashes, [c["logits_hash"] for c in chunks[-1]["mete"]["receipt"]["choices"]])
        self.assertEqual([c["seed"] for c in whole["mete"]["receipt"]["choices"]], [0, 1])

    def test_completion_stream_is_the_whole_answer(self):
        body = {"prompt": ["hello", "there"], "max_tokens": 8, "ignore_eos": True, "logprobs": 2}
        whole = self.server.ok("/v1/completions", body)
        texts = ["", ""]
        for _, chunk in self.server.stream("/v1/completions", body)[:-1]:
            for choice in chunk["choices"]:
                texts[choice["index"]] += choice["text"]
        self.assertEqual(texts, [c["text"] for c in whole["choices"]])
        self.assertEqual([len(c["logprobs"]["tokens"]) for c in whole["choices"]], [8, 8])

    def test_llama_completion_stream_is_the_whole_answer(self):
        body = {"prompt": "hello", "n_predict": 8, "ignore_eos": True, "return_tokens": True, "n_probs": 2}
        whole = self.server.ok("/completion", body)
        events = [e[1] for e in self.server.stream("/completion", body)]
        self.assertEqual("".join(e["content"] for e in events), whole["content"])
        self.assertEqual(sum((e["tokens"] for e in events), []), whole["tokens"])
        self.assertEqual(len(whole["tokens"]), 8)
        self.assertEqual([e["stop"] for e in events], [False] * (len(events) - 1) + [True])
        self.assertEqual((whole["stop_type"], whole["tokens_predicted"]), ("limit", 8))
        self.assertEqual(len(whole["completion_probabilities"]), 8)
        tokens = self.server.ok("/completion", {"prompt": self.server.ok("/tokenize", {
            "content": "hello", "add_special": True})["tokens"], "n_predict": 8, "ignore_eos": True})
        self.assertEqual(tokens["content"], whole["content"])
        part = self.server.ok("/completion", {**body, "response_fields": ["content", "generation_settings/n_predict"]})
        self.assertEqual(part, {"content": whole["content"], "generation_settings/n_predict": 8})

    def test_messages_stream_is_the_whole_answer(self):
        body = {"messages": HI, "max_tokens": 8, "ignore_eos": True, "cache_prompt": False}
        whole = self.server.ok("/v1/messages", body)
        events = self.server.stream("/v1/messages", body)
        names = [name for name, _ in events]
        self.assertEqual(names[:2] + names[-3:], ["message_start", "content_block_start", "content_block_stop",
                                                  "message_delta", "message_stop"])
        self.assertTrue(all(name == data["type"] for name, data in events))
        text = "".join(d["delta"]["text"] for n, d in events if n == "content_block_delta")
        self.assertEqual(text, whole["content"][0]["text"])
        self.assertEqual(events[-2][1]["usage"], whole["usage"])
        self.assertEqual((whole["stop_reason"], whole["usage"]["output_tokens"]), ("max_tokens", 8))

    def test_responses_stream_is_the_whole_answer(self):
        body = {"input": "hello there", "max_output_tokens": 8, "ignore_eos": True, "cache_prompt": False}
        whole = self.server.ok("/v1/responses", body)
        events = self.server.stream("/v1/responses", body)
        self.assertEqual([d["sequence_number"] for _, d in events], list(range(len(events))))
        text = "".join(d["delta"] for n, d in events if n == "response.output_text.delta")
        self.assertEqual(text, whole["output"][0]["content"][0]["text"])
        last = events[-1][1]["response"]
        self.assertEqual((last["status"], last["incomplete_details"]), ("incomplete", {"reason": "max_output_tokens"}))
        self.assertEqual(last["output"][0]["content"], whole["output"][0]["content"])
        self.assertEqual(last["usage"], whole["usage"])

    def test_embeddings_in_both_encodings(self):
        plain = self.server.ok("/v1/embeddings", {"input": ["hello", "there"]})
        coded = self.server.ok("/v1/embeddings", {"input": ["hello", "there"], "encoding_format": "base64"})
        for a, b in zip(plain["data"], coded["data"]):
            data = base64.b64decode(b["embedding"])
            floats = list(struct.unpack(f"<{len(data) // 4}f", data))
            self.assertEqual(a["embedding"], floats)
            self.assertAlmostEqual(sum(x * x for x in floats), 1, places=5)
        self.assertEqual([d["index"] for d in plain["data"]], [0, 1])

    def test_stop_strings_and_grammar(self):
        free = self.server.ok("/completion", {"prompt": "hello", "n_predict": 24, "ignore_eos": True})["content"]
        stop = free[6:9]
        cut = self.server.ok("/completion", {"prompt": "hello", "n_predict": 24, "ignore_eos": True, "stop": [stop]})
        self.assertEqual(cut["content"], free[:free.index(stop)])
        self.assertEqual((cut["stop_type"], cut["stopping_word"]), ("word", stop))
        bound = self.server.ok("/completion", {"prompt": "hello", "n_predict": 24, "grammar": 'root ::= "a" "b"{3}'})
        self.assertEqual((bound["content"], bound["stop_type"]), ("abbb", "eos"))
        schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
        chat = self.server.ok("/v1/chat/completions", {"messages": HI, "max_tokens": 64, "response_format": {
            "type": "json_schema", "json_schema": {"name": "x", "schema": schema}}})
        self.assertIn(json.loads(chat["choices"][0]["message"]["content"]), [{"a": 1}, {"a": 2}])

    def test_biases_of_ids_and_texts(self):
        body = {"prompt": "hello", "n_predict": 4, "temperature": 0, "ignore_eos": True}
        free = self.server.ok("/completion", body)
        letter = free["content"][0]
        for bias in ([[letter, -100]], {letter: -100}, [[letter, False]]):
            self.assertNotEqual(self.server.ok("/completion", {**body, "logit_bias": bias})["content"][0], letter)
        shown = self.server.ok("/completion", {**body, "logit_bias": {"5": 1.5}})["generation_settings"]["logit_bias"]
        self.assertEqual(shown[0], {"token": 5, "bias": 1.5})
        self.assertGreater(len(shown), 1)  # and the ends that ignore_eos bans
        self.assertTrue(all(b["bias"] is None for b in shown[1:]))

    def test_same_answer_alone_and_among_others(self):
        bodies = [{"prompt": "hello " * (i + 1), "n_predict": 16, "ignore_eos": True, "temperature": 1, "seed": i,
                   "return_tokens": True} for i in range(12)]
        alone = [self.server.ok("/completion", body) for body in bodies]
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            together = list(pool.map(lambda body: self.server.ok("/completion", body), bodies))
        for a, b in zip(alone, together):
            self.assertEqual(a["tokens"], b["tokens"])
            self.assertEqual(a["mete"]["receipt"]["choices"][0]["logits_hash"],
                             b["mete"]["receipt"]["choices"][0]["logits_hash"])

    def test_metrics_are_prometheus_text(self):
        self.server.ok("/completion", {"prompt": "hello", "n_predict": 4, "ignore_eos": True})
        status, headers, body = self.server.request("GET", "/metrics")
        self.assertEqual((status, headers["Content-Type"]), (200, "text/plain; version=0.0.4; charset=utf-8"))
        sample = re.compile(r'[a-zA-Z_:][a-zA-Z0-9_:]*\{([a-z_]+="[^"]*",?)*\} [-+0-9.e]+$')
        typed = set()
        for line in body.decode().splitlines():
            if line.startswith("# TYPE "):
                typed.add(line.split()[2])
            elif not line.startswith("#"):
                self.assertRegex(line, sample)
                name = line.split("{")[0]
                self.assertIn(re.sub("_(bucket|sum|count)$", "", name) if name not in typed else name, typed)
        self.assertGreaterEqual(self.server.metric("vllm:generation_tokens_total"), 4)
        self.assertEqual(self.server.metric(RUNNING), 0)
        self.assertEqual(self.server.metric("vllm:kv_cache_usage_perc"), 0)

    def test_request_ids_and_ignored_fields(self):
        status, headers, body = self.server.request("POST", "/completion", {"prompt": "a", "n_predict": 1, "zzz": 1},
                                                    {"X-Request-Id": "my-id-7"})
        self.assertEqual(headers["X-Request-Id"], "my-id-7")
        self.assertEqual(json.loads(body)["mete"]["ignored_fields"], ["zzz"])
        self.assertEqual(json.loads(body)["mete"]["request_id"], "my-id-7")
        line = self.server.wait_for("request", id="my-id-7")
        self.assertEqual((line["status"], line["path"]), (200, "/completion"))
        status, headers, body = self.server.request("POST", "/completion", {"prompt": "a", "n_predict": 1},
                                                    {"X-Request-Id": "a b\"{}"})
        self.assertRegex(headers["X-Request-Id"], "^req_[0-9a-f]{16}$")

    def test_keep_alive_and_pipelining(self):
        connection = self.server.connect()
        for _ in range(3):
            connection.request("POST", "/completion", json.dumps({"prompt": "a", "n_predict": 1}))
            self.assertEqual(connection.getresponse().read()[:1], b"{")
        connection.close()
        one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        out = self.server.raw(one * 3 + b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        self.assertEqual(out.count(b"HTTP/1.1 200 OK"), 4)


class Refusals(Serve):
    def refused(self, path, body, status, field=None, code=None, text=None):
        found, data = self.server.post(path, body)
        self.assertEqual(found, status, data)
        error = data["error"]
        self.assertTrue(error["message"])
        if field:
            self.assertEqual(error["param"], field, error)
        if code:
            self.assertEqual(error["code"], code, error)
        if text:
            self.assertIn(text, error["message"])

    def test_bodies_that_are_not_json(self):
        for path in ("/v1/chat/completions", "/v1/completions", "/completion", "/v1/responses", "/v1/embeddings",
                     "/tokenize", "/detokenize", "/apply-template"):
            for body in (b"", b"{", b"[]", b"null", b'{"prompt": "\xff\xfe"}', b"[" * 100000):
                self.refused(path, body, 400)

    def test_fields(self):
        chat = "/v1/chat/completions"
        self.refused(chat, {"messages": HI, "model": "gpt-5"}, 404, "model", "model_not_found")
        self.refused(chat, {"messages": []}, 400, "messages")
        self.refused(chat, {"messages": HI, "max_tokens": 0}, 400, "max_tokens")
        self.refused(chat, {"messages": HI, "temperature": -1}, 400, "temperature", "invalid_value", "found -1")
        self.refused(chat, {"messages": HI, "store": True}, 400, "store", "unsupported_value")
        self.refused(chat, {"messages": HI, "grammar": "root ::= this is (not"}, 400, "grammar")
        self.refused(chat, {"messages": HI, "response_format": {"type": "json_object", "schema": {"type": "hiccup"}}},
                     400, "response_format.schema")
        self.refused(chat, {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://127.0.0.1/"}}]}]}, 400, "messages[0].content[0].type")
        self.refused("/completion", {"prompt": "word " * 400}, 400, code="context_length_exceeded", text="256")
        error = self.server.post("/completion", {"prompt": "word " * 400})[1]["error"]
        self.assertEqual(error["n_ctx"], 256)
        self.assertEqual(error["n_prompt_tokens"], error["found"])
        self.refused("/completion", {"prompt": [10**9]}, 400, "prompt")
        self.refused("/completion", {"prompt": "a", "logit_bias": {"999999": 1}}, 400, "logit_bias", text="or texts")
        self.refused("/completion", {"prompt": "a", "logit_bias": {"a" * 2000: 1}}, 400, "logit_bias", text="1024")
        self.refused("/detokenize", {"tokens": [-1]}, 400, "tokens[0]")

    def test_anthropic_errors_have_their_own_form(self):
        status, data = self.server.post("/v1/messages", {"messages": HI})
        self.assertEqual((status, data["type"], data["error"]["type"]), (400, "error", "invalid_request_error"))
        self.assertIn("max_tokens", data["error"]["message"])
        status, data = self.server.post("/v1/messages", {"messages": HI, "max_tokens": 1, "model": "nope"})
        self.assertEqual((status, data["error"]["type"]), (404, "not_found_error"))

    def test_paths_and_methods(self):
        for path in ("/nothing", "//health", "/health/", "/../health", "/%2e%2e/etc/passwd", "/v1/models/..",
                     "/v1//models", "/HEALTH", "/props%00", "/slots/0?action=save"):
            self.assertEqual(self.server.get(path)[0], 404, path)
        status, headers, _ = self.server.request("GET", "/completion")
        self.assertEqual((status, headers["Allow"]), (405, "POST"))
        self.assertEqual(self.server.request("OPTIONS", "/completion")[0], 405)
        self.assertEqual(self.server.get("/health?x=../..")[0], 200)

    def test_bytes_that_are_not_http(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
                     b"GET / HTTP/1.1\r\nA B: c\r\n\r\n", b"POST /completion HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
                     b"POST /completion HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     b"POST /completion HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
            self.assertEqual(self.server.raw(data, timeout=5)[:12], b"HTTP/1.1 400", data)
        big = b"GET / HTTP/1.1\r\nX: " + b"a" * 20000 + b"\r\n\r\n"
        self.assertEqual(self.server.raw(big, timeout=5)[:12], b"HTTP/1.1 431")
        self.assertEqual(self.server.get("/health")[0], 200)

    def test_other_sites_may_not_use_it(self):
        for origin, status in (("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:3000", 200)):
            found = self.server.request("POST", "/completion", {"prompt": "a", "n_predict": 1}, {"Origin": origin})
            self.assertEqual(found[0], status, origin)
            self.assertNotIn("Access-Control-Allow-Origin", found[1])


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
