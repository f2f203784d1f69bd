"""Random requests for serve_soak.py: of all APIs, and broken ones of many kinds, each with the statuses that may answer it."""
import dataclasses
import json
import random

WORDS = ("one", "two", "red", "blue", "sky", "42", "{", "\u00e9", "\u65e5\u672c", "<|im_end|>", "\"", "\\", "\n")
PREFIXES = [" ".join(random.Random(i).choices(WORDS[:8], k=20 + 2 * i)) for i in range(24)]  # conversations that come back
BUSY = {429, 503, 504}  # queue full; large bodies under way; deadline passed


@dataclasses.dataclass
class Case:
    kind: str
    data: bytes
    statuses: set      # that may answer it; empty: any, or none
    check: str = ""    # of a complete answer: "json" if its text must parse, or the canary's name


def words(rng, longest=100):
    return " ".join(rng.choices(WORDS, k=min(longest, rng.choice((1, 5, 40, 150)))))


def prompt(rng):
    return (rng.choice(PREFIXES) + " " if rng.random() < 0.4 else "") + words(rng, 40)


def schema(rng):
    """A JSON schema that has hardly been seen before."""
    name = f"k{rng.randrange(10 ** 6)}"
    leaf = rng.choice(({"type": "integer"}, {"type": "string", "maxLength": 8}, {"enum": ["a", "b", name]},
                       {"type": "string", "pattern": "^\\d{2,4}$"}, {"type": "boolean"},
                       {"type": "array", "items": {"type": "integer"}, "maxItems": 3}))
    return {"type": "object", "properties": {name: leaf, "z": {"type": "null"}}, "required": [name],
            "additionalProperties": False}


def grammar(rng):
    return f"root ::= \"x{rng.randrange(10 ** 6)}\" [a-{rng.choice('fxz')}]+ rest?\nrest ::= \" \" [0-9]{{1,{rng.randrange(2, 40)}}}"


def tool(rng):
    return f"f{rng.randrange(1000)}", schema(rng)


def common(rng):
    out = {"temperature": rng.random(), "seed": rng.randrange(1000), "stream": rng.random() < 0.6}
    if rng.random() < 0.1:
        out["n"] = 2
    if rng.random() < 0.1:
        out["priority"] = rng.randrange(-3, 4)
    if rng.random() < 0.05:
        out["deadline_ms"] = rng.choice((1, 50, 500, 5000))
    if rng.random() < 0.1:
        out.update({"timings_per_token": True, "return_progress": True})
    if rng.random() < 0.1:
        out.update(rng.choice(({"cache_salt": f"s{rng.randrange(5)}"}, {"cache_prompt": False})))
    if rng.random() < 0.1:
        out.update(rng.choice(({"logit_bias": {"5": -2}}, {"presence_penalty": 1.0}, {"top_k": 3}, {"min_p": 0.2})))
    return out


def completion(rng, tokens):
    body = {**common(rng), "prompt": prompt(rng), "n_predict": tokens}
    body.update(rng.choice(({}, {}, {"stop": ["a"]}, {"grammar": grammar(rng)}, {"json_schema": schema(rng)},
                            {"n_probs": rng.randrange(6)}, {"mirostat": 2}, {"n_probs": 3, "post_sampling_probs": True}, {"dry_multiplier": 0.8})))
    return "/completion", body


def openai_completion(rng, tokens):
    body = {**common(rng), "prompt": [prompt(rng), "x"], "max_tokens": tokens, "echo": False}
    if rng.random() < 0.1:  # more choices than the queue holds
        body.update(prompt=[words(rng, 5)] * 40, max_tokens=2)
    return "/v1/completions", body


def chat(rng, tokens):
    messages = [{"role": "user", "content": prompt(rng)}]
    if rng.random() < 0.3:
        messages += [{"role": "assistant", "content": words(rng, 5)}, {"role": "user", "content": "and then"}]
    body = {**common(rng), "messages": messages, "max_tokens": tokens, "logprobs": rng.random() < 0.2}
    kind = rng.random()
    if kind < 0.15:
        body["response_format"] = {"type": "json_object"}
    elif kind < 0.35:
        body["response_format"] = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema(rng)}}
    elif kind < 0.5:
        name, parameters = tool(rng)
        body["tools"] = [{"type": "function", "function": {"name": name, "parameters": parameters}}]
        body["tool_choice"] = rng.choice(("auto", "none", "required", {"type": "function", "function": {"name": name}}))
        if body["tool_choice"] not in ("auto", "none"):  # where strict needs marks of calls that a model may lack
            body["tools"][0]["function"]["strict"] = True
    if body["stream"] and rng.random() < 0.5:
        body["stream_options"] = {"include_usage": True}
    return "/v1/chat/completions", body


def anthropic(rng, tokens):
    body = {"messages": [{"role": "user", "content": prompt(rng)}], "max_tokens": tokens, "stream": rng.random() < 0.5}
    if rng.random() < 0.3:
        name, parameters = tool(rng)
        body["tools"] = [{"name": name, "input_schema": parameters}]
        body["tool_choice"] = rng.choice(({"type": "auto"}, {"type": "any"}, {"type": "tool", "name": name}))
    if rng.random() < 0.2:
        del body["stream"]
        return "/v1/messages/count_tokens", body
    return "/v1/messages", body


def small(rng, _):
    messages = [{"role": "user", "content": words(rng)}]
    return rng.choice((("/v1/embeddings", {"input": [words(rng), "x"], "encoding_format": rng.choice(("float", "base64"))}),
                       ("/tokenize", {"content": words(rng)}), ("/detokenize", {"tokens": [rng.randrange(100) for _ in range(9)]}),
                       ("/apply-template", {"messages": messages})))


def responses(rng, tokens):
    return "/v1/responses", {"input": prompt(rng), "max_output_tokens": tokens, "stream": rng.random() < 0.5}


MAKERS = (completion, completion, openai_completion, chat, chat, chat, anthropic, responses, small)


def http(path, body, close=True):
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            f"{'Connection: close' + chr(13) + chr(10) if close else ''}\r\n").encode() + body


def canary(rng):
    """One of five requests whose answer must be the same, whatever else runs."""
    i = rng.randrange(5)
    body = {"prompt": PREFIXES[i], "n_predict": 12, "seed": i, "temperature": 0.9, "n_probs": 2}
    return Case("canary", http("/completion", json.dumps(body).encode()), {200} | BUSY, f"canary {i}")


def good(rng, tokens):
    path, body = rng.choice(MAKERS)(rng, rng.choice(tokens))
    data = json.dumps(body).encode()
    checks = "response_format" in body and not body["stream"] and "n" not in body
    if rng.random() < 0.15:  # two requests on one connection, the second sent before the first is answered
        return Case(path, http(path, data, close=False) + http(path, data), {200} | BUSY)
    return Case(path, http(path, data), {200} | BUSY, "json" if checks else "")


def invalid(rng):
    """Well-formed JSON that must be refused."""
    path, body = rng.choice(((completion, chat, anthropic)))(rng, 8)
    broken = rng.choice(({"temperature": -1}, {"temperature": "hot"}, {"max_tokens": -7, "n_predict": -7},
                         {"seed": 1e30, "max_tokens": "x", "n_predict": "x"}, {"stream": "yes"},
                         {"messages": [], "prompt": {"no": 1}}, {"messages": "text", "prompt": None},
                         {"top_p": [[]], "messages": [{"role": 7}]}, {"model": "another"}))
    body.update(broken)
    return Case("invalid field", http(path, json.dumps(body).encode()), {400, 404})


def bad_grammar(rng):
    path, body = rng.choice((
        ("/completion", {"prompt": "x", "grammar": rng.choice(("root ::= ", "root ::= nothing", "r ::= \"", words(rng) or "?"))}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "response_format": {
            "type": "json_schema", "json_schema": {"schema": rng.choice((
                {"type": "no"}, {"$ref": "#/nowhere"}, {"pattern": "("}, {"type": "string", "pattern": "("}, 7))}}})))
    return Case("bad grammar", http(path, json.dumps(body).encode()), set())


def no_json(rng, tokens):
    path, body = rng.choice(MAKERS)(rng, rng.choice(tokens))
    data = json.dumps(body).encode()
    kind = rng.randrange(4)
    if kind == 0:
        data = data[:rng.randrange(len(data))]
    elif kind == 1:
        data = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 400)))
    elif kind == 2:
        data = b"[" * rng.randrange(1, 5000)
    else:
        data = data[:-1] + b",\"x\":\"\xff\xfe\"}"
    return Case("bad JSON", http(path, data), {400})


def too_long(rng, limit):
    """Bodies over the limit: announced, really sent, or sent in chunks; and prompts longer than the context."""
    kind = rng.randrange(5)
    if kind == 0:
        return Case("oversize", b"POST /completion HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"a" * 5000, set())
    if kind == 1:
        return Case("oversize", http("/completion", b" " * (limit + 1 + rng.randrange(1 << 18))), set())
    if kind == 2:
        return Case("oversize", b"POST /completion HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
                    b"10000\r\n" + b"a" * 65536 + b"\r\n" + (b"10000\r\n" + b"b" * 65536 + b"\r\n") * (limit // 65536 + 1), set())
    if kind == 3:
        body = json.dumps({"prompt": "word " * (limit // 6), "n_predict": 1}).encode()
        return Case("context overflow", http("/completion", body), {400, 503})
    return Case("long header", b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"y" * 40000 + b"\r\n\r\n", set())


def no_http(rng):
    if rng.random() < 0.5:
        return Case("no HTTP", bytes(rng.randrange(256) for _ in range(rng.randrange(1, 2000))), set())
    line = rng.choice(("GET /metrics", "GET /slots", "GET /health", "GET /props", "GET /", "GET /v1/models", "GET /../x",
                       "GET /%2e%2e/x", "DELETE /props", "POST /memory", "OPTIONS /v1/models", "PUT /completion"))
    return Case(line, (line + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").encode(), {200, 204, 400, 401, 403, 404, 405, 411})


def random_case(rng, tokens, limit):
    """`tokens`: lengths of answers to choose from; `limit`: the server's longest body, in bytes."""
    kind = rng.random()
    if kind < 0.05:
        return canary(rng)
    if kind < 0.12:
        return no_json(rng, tokens)
    if kind < 0.16:
        return invalid(rng)
    if kind < 0.18:
        return bad_grammar(rng)
    if kind < 0.21:
        return too_long(rng, limit)
    if kind < 0.26:
        return no_http(rng)
    return good(rng, tokens)
