"""The official OpenAI Python client against a running server (METE_URL)."""
import json
import os

import openai
import pytest

client = openai.OpenAI(base_url=os.environ["METE_URL"] + "/v1", api_key="none", max_retries=0)
MODEL = os.environ.get("METE_MODEL", "mete")
ASK = [{"role": "user", "content": "Say hello."}]


def test_models():
    assert [m.id for m in client.models.list()] == [MODEL]


def test_chat_whole_and_streamed():
    whole = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=16, temperature=0, logprobs=True,
                                           top_logprobs=2)
    assert whole.choices[0].finish_reason in ("stop", "length")
    assert len(whole.choices[0].logprobs.content[0].top_logprobs) == 2
    stream = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=16, temperature=0, stream=True,
                                            stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens)
    assert usage.prompt_tokens_details.cached_tokens > 0  # the second request finds the first one's prompt


def test_chat_stream_helper():
    with client.chat.completions.stream(model=MODEL, messages=ASK, stop=["e", "a"]) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].finish_reason == "stop"


def test_completions():
    whole = client.completions.create(model=MODEL, prompt=["1 2 3", "a b c"], max_tokens=8, temperature=0, logprobs=2)
    assert len(whole.choices) == 2
    assert len(whole.choices[0].logprobs.tokens) == 8
    text = ["", ""]
    for chunk in client.completions.create(model=MODEL, prompt=["1 2 3", "a b c"], max_tokens=8, temperature=0, stream=True):
        for choice in chunk.choices:
            text[choice.index] += choice.text
    assert text == [c.text for c in whole.choices]


def test_responses():
    whole = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=16, temperature=0)
    assert whole.output_text
    with client.responses.stream(model=MODEL, input="Say hello.", max_output_tokens=16, temperature=0) as stream:
        text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
    assert text == whole.output_text


def test_embeddings():  # the client asks for base64 by itself
    data = client.embeddings.create(model=MODEL, input=["one", "two"]).data
    plain = client.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float").data
    assert [d.embedding for d in data] == [d.embedding for d in plain]
    assert len(data[0].embedding) > 8


def test_json_schema():
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"],
              "additionalProperties": False}
    answer = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Capital of France as JSON?"}], max_tokens=64, temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": schema, "strict": True}})
    assert list(json.loads(answer.choices[0].message.content)) == ["city"]


def test_errors_are_the_clients_own():
    with pytest.raises(openai.NotFoundError) as e:
        client.chat.completions.create(model="no-such-model", messages=ASK)
    assert e.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=MODEL, messages=ASK, temperature=-3)
    assert e.value.param == "temperature"
