"""`mete serve` over loopback: every endpoint, streams equal to whole answers, refusals."""
import base64
import concurrent.futures
import json
import re
import struct
import unittest

from harness import SMOLLM2
from serving import HI, RUNNING, Server, options


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

    def test_strict_tools_that_cannot_be_enforced_are_refused(self):
        tools = [{"type": "function", "function": {"name": "near", "strict": True, "parameters": {"type": "object"}}}]
        body = {"messages": HI, "tools": tools, "max_tokens": 4}
        status, error = self.server.post("/v1/chat/completions", body)  # its template has no marks of calls
        self.assertEqual((status, error["error"]["param"]), (400, "tools[0].function.strict"))
        self.server.ok("/v1/chat/completions", {**body, "tool_choice": "required"})
        with Server(*options()[:4], "--chat-template", "{# <tool_call> #}{{ messages[0].content }}") as server:
            server.ok("/v1/chat/completions", body)
            status, error = server.post("/v1/chat/completions", {**body, "response_format": {"type": "json_object"}})
            self.assertEqual((status, error["error"]["param"]), (400, "tools[0].function.strict"))
            tools[0]["function"]["parameters"] = {"type": "hiccup"}
            status, error = server.post("/v1/chat/completions", body)
            self.assertEqual((status, error["error"]["param"]), (400, "tools"))

    @unittest.skipUnless(SMOLLM2.exists(), "needs the default model")
    def test_strict_tools_are_enforced(self):
        template = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
                    "<|im_start|>assistant\n{# <tool_call> #}")
        messages = []
        for unit in ("league", "furlong", "inch", "parsec"):
            call = json.dumps({"name": "near", "arguments": {"unit": unit}})
            messages += [{"role": "user", "content": "near " + unit},
                         {"role": "assistant", "content": f"<tool_call>\n{call}\n</tool_call>"}]
        messages.append({"role": "user", "content": "near yard"})
        units = []
        with Server("-c", 1024, "-np", 2, "--temp", 0, "--chat-template", template, model=SMOLLM2) as server:
            for strict in (False, True):
                tools = [{"type": "function", "function": {"name": "near", "strict": strict, "parameters": {
                    "type": "object", "properties": {"unit": {"enum": ["km", "mile"]}}, "required": ["unit"]}}}]
                body = {"messages": messages, "tools": tools, "max_tokens": 60}
                choice = server.ok("/v1/chat/completions", body)["choices"][0]
                self.assertEqual(choice["finish_reason"], "tool_calls")
                units.append(json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"])["unit"])
        self.assertEqual(units[0], "yard")
        self.assertIn(units[1], ("km", "mile"))

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

    def test_embeddings_in_llama_servers_form(self):
        vectors = [d["embedding"] for d in self.server.ok("/v1/embeddings", {"input": ["hello", "there"]})["data"]]
        for path, body in (("/embedding", {"content": ["hello", "there"]}), ("/embeddings", {"input": ["hello", "there"]}),
                           ("/v1/embeddings", {"content": ["hello", "there"]})):
            answer = self.server.ok(path, body)
            self.assertEqual([(d["index"], d["embedding"]) for d in answer], [(i, [v]) for i, v in enumerate(vectors)])
        parts = {"content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]}
        self.assertEqual(self.server.ok("/v1/embeddings", {"input": parts})["data"][0]["embedding"], vectors[0])

    def test_streams_tell_progress_and_timings_when_asked(self):
        text = "hello there " * 30
        more = {"ignore_eos": True, "cache_prompt": False, "return_progress": True, "timings_per_token": True}
        for path, body, piece in (
                ("/completion", {"prompt": text, "n_predict": 6}, lambda e: e["content"]),
                ("/v1/completions", {"prompt": text, "max_tokens": 6}, lambda e: e["choices"][0]["text"]),
                ("/v1/chat/completions", {"messages": [{"role": "user", "content": text}], "max_tokens": 6},
                 lambda e: e["choices"][0]["delta"].get("content")),
                ("/v1/responses", {"input": text, "max_output_tokens": 6},
                 lambda e: e.get("delta") if e["type"] == "response.output_text.delta" else None),
                ("/v1/messages", {"messages": [{"role": "user", "content": text}], "max_tokens": 6},
                 lambda e: e["type"] == "content_block_delta")):
            with Server(*options(), "-ub", 16) as server:
                events = [e for _, e in server.stream(path, {**body, **more}) if e != "[DONE]"]
                plain = [e for _, e in server.stream(path, body) if e != "[DONE]"]
            progress = [e["prompt_progress"] for e in events if "prompt_progress" in e]
            self.assertGreater(len(progress), 3, path)
            total = progress[0]["total"]
            self.assertEqual((progress[0]["cache"], progress[0]["processed"]), (0, 0))
            self.assertEqual([p["processed"] for p in progress[:-1]], list(range(0, total, 16)))
            self.assertEqual({(p["total"], p["cache"]) for p in progress}, {(total, 0)})
            self.assertEqual(progress[-1]["processed"], total)
            self.assertTrue(all(a["time_ms"] <= b["time_ms"] for a, b in zip(progress, progress[1:])))
            times = [e["timings"] for e in events if "prompt_progress" in e]
            self.assertEqual([(t["prompt_n"], t["predicted_n"]) for t in times], [(p["processed"], 0) for p in progress])
            self.assertEqual((times[0]["prompt_ms"], times[0]["predicted_ms"]), (0, 0))
            pieces = [e for e in events if "prompt_progress" not in e and piece(e)]
            self.assertTrue(pieces, path)
            counts = [e["timings"]["predicted_n"] for e in pieces]
            self.assertEqual(counts, sorted(counts))
            self.assertEqual((pieces[-1]["timings"]["prompt_n"], counts[-1]), (total, 6))
            self.assertFalse([e for e in plain if "prompt_progress" in e or (piece(e) and "timings" in e)], path)

    def test_probabilities_after_sampling(self):
        body = {"prompt": "hello", "n_predict": 6, "ignore_eos": True, "n_probs": 5, "temperature": 1, "top_k": 3,
                "top_p": 1, "min_p": 0, "post_sampling_probs": True}
        whole = self.server.ok("/completion", body)
        self.assertTrue(whole["generation_settings"]["post_sampling_probs"])
        self.assertEqual(len(whole["completion_probabilities"]), 6)
        for token in whole["completion_probabilities"]:
            self.assertEqual(len(token["top_probs"]), 3)
            self.assertAlmostEqual(sum(t["prob"] for t in token["top_probs"]), 1, places=5)
            self.assertIn((token["id"], token["prob"]), [(t["id"], t["prob"]) for t in token["top_probs"]])
            self.assertEqual(sorted(token), ["bytes", "id", "prob", "token", "top_probs"])
        streamed = [p for _, e in self.server.stream("/completion", body) for p in e.get("completion_probabilities", [])]
        self.assertEqual(streamed, whole["completion_probabilities"])
        chat = self.server.ok("/v1/chat/completions", {**body, "messages": HI})["choices"][0]["logprobs"]["content"]
        self.assertEqual([len(t["top_probs"]) for t in chat], [3] * 6)
        raw = self.server.ok("/completion", {**body, "post_sampling_probs": False})["completion_probabilities"]
        self.assertEqual([(len(t["top_logprobs"]), t["id"]) for t in raw],
                         [(5, t["id"]) for t in whole["completion_probabilities"]])

    def test_stop_strings_and_grammar(self):
        free = self.server.ok("/completion", {"prompt": "hello", "n_predict": 24, "ignore_eos": True})["content"]
        stop = free[6:9]
        cut = self.server.ok("/completion", {"prompt": "hello", "n_predict": 24, "ignore_eos": True, "stop": [stop]})
        self.assertEqual(cut["content"], free[:free.index(stop)])
        self.assertEqual((cut["stop_type"], cut["stopping_word"]), ("word", stop))
        bound = self.server.ok("/completion", {"prompt": "hello", "n_predict": 24, "grammar": 'root ::= "a" "b"{3}'})
        full = self.server.ok("/completion", {"prompt": "hello", "ignore_eos": True})
        self.assertEqual((full["truncated"], full["stop_type"], cut["truncated"]), (True, "limit", False))
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
        self.refused(chat, b'{"messages": [{"role": "user", "role": "user", "content": "a"}]}', 400, "messages[0].role",
                     "duplicate_key", "found twice")
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

    def test_bytes_that_are_not_utf8(self):
        self.assertEqual(self.server.raw(b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\nX-Request-Id: \xc3\r\n"
                                         b"Connection: close\r\n\r\n")[:12], b"HTTP/1.1 404")
        self.assertEqual(self.server.wait_for("refused", path="/\ufffd\ufffd")["status"], 404)
        body = b'{"prompt": "a", "n_predict": 1, "\xff": 1}'
        out = self.server.raw(b"POST /completion HTTP/1.1\r\nHost: x\r\nOrigin: \xff\r\nConnection: close\r\n"
                              b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self.assertEqual(out[:12], b"HTTP/1.1 403")
        self.refused("/completion", body, 400, text="UTF-8")
        # Text with an isolated surrogate is not UTF-8 either; escaped pairs are.
        self.refused("/completion", b'{"prompt": "\\ud800", "n_predict": 1}', 400)
        self.server.ok("/completion", {"prompt": "\U0001f600", "n_predict": 1})

    def test_other_sites_may_not_use_it(self):
        for origin, status in (("http://evil.example", 403), ("null", 403), ("http://127.0.0.1:3000", 200)):
            found = self.server.request("POST", "/completion", {"prompt": "a", "n_predict": 1}, {"Origin": origin})
            self.assertEqual(found[0], status, origin)
            self.assertNotIn("Access-Control-Allow-Origin", found[1])


if __name__ == "__main__":
    unittest.main()
