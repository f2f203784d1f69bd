"""The official OpenAI Python client against a running server (METE_URL)."""
import asyncio
import json
import os
import time
import urllib.request
from typing import Literal

import openai
import pydantic
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


WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "the weather of a city", "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "required": ["city", "days"], "additionalProperties": False}}}
ASK_WEATHER = [{"role": "user", "content": "What is the weather in Paris for 3 days?"}]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_tool_call_whole_streamed_and_answered(choice):
    settings = {"model": MODEL, "messages": ASK_WEATHER, "tools": [WEATHER], "tool_choice": choice, "max_tokens": 100, "temperature": 0}
    whole = client.chat.completions.create(**settings).choices[0]
    assert whole.finish_reason == "tool_calls"
    call = whole.message.tool_calls[0]
    assert call.function.name == "get_weather"
    arguments = json.loads(call.function.arguments)
    assert arguments["city"] in ("Paris", "Rome") and 1 <= arguments["days"] <= 9
    name, text, reason = "", "", None
    for chunk in client.chat.completions.create(**settings, stream=True):
        for delta in chunk.choices[0].delta.tool_calls or []:
            name += delta.function.name or ""
            text += delta.function.arguments or ""
        reason = chunk.choices[0].finish_reason or reason
    assert (name, json.loads(text), reason) == ("get_weather", arguments, "tool_calls")
    after = [*ASK_WEATHER, whole.message.model_dump(exclude_none=True),
             {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    answer = client.chat.completions.create(model=MODEL, messages=after, tools=[WEATHER], tool_choice="none", max_tokens=16)
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls


def test_tools_that_are_not_called():
    answer = client.chat.completions.create(model=MODEL, messages=ASK, tools=[WEATHER], tool_choice="auto", max_tokens=16, temperature=0)
    assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls")
    assert answer.usage.completion_tokens <= 16


def test_choices_seeds_and_bias():
    settings = {"model": MODEL, "messages": ASK, "max_tokens": 12, "temperature": 1.5}
    two = client.chat.completions.create(**settings, n=2, seed=7)
    assert [c.index for c in two.choices] == [0, 1]
    again = client.chat.completions.create(**settings, seed=8)
    assert again.choices[0].message.content == two.choices[1].message.content  # choice i has seed + i
    token = client.chat.completions.create(**settings, seed=7, logprobs=True, top_logprobs=0).choices[0].logprobs.content[0]
    assert token.logprob <= 0 and token.bytes == list(token.token.encode())


def test_stream_of_logprobs_is_that_of_the_whole():
    settings = {"model": MODEL, "messages": ASK, "max_tokens": 8, "temperature": 0, "logprobs": True, "top_logprobs": 3}
    whole = client.chat.completions.create(**settings).choices[0].logprobs.content
    streamed = [t for c in client.chat.completions.create(**settings, stream=True) if c.choices and c.choices[0].logprobs
                for t in c.choices[0].logprobs.content or []]
    assert streamed == whole and all(len(t.top_logprobs) == 3 for t in whole)


def test_parsed_answers():
    class City(pydantic.BaseModel):
        name: Literal["Paris", "Rome"]
        people: int = pydantic.Field(ge=0, le=9999999)

    answer = client.chat.completions.parse(model=MODEL, messages=[{"role": "user", "content": "The capital of France as JSON?"}],
                                           response_format=City, max_tokens=60, temperature=0)
    assert answer.choices[0].message.parsed.name in ("Paris", "Rome")


def test_response_events_in_order():
    events = [e.type for e in client.responses.create(model=MODEL, input=[{"role": "user", "content": "Say hello."}],
                                                      instructions="Be brief.", max_output_tokens=8, stream=True)]
    assert events[0] == "response.created"
    assert events[-1] in ("response.completed", "response.incomplete")
    assert events.count("response.output_text.done") == 1


def test_a_stream_that_is_closed_early_leaves_the_server_free():
    stream = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=1000, stream=True, extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    with urllib.request.urlopen(os.environ["METE_URL"] + "/metrics") as answer:
        assert answer.status == 200
    for _ in range(100):
        with urllib.request.urlopen(os.environ["METE_URL"] + "/slots") as answer:
            if not any(slot["is_processing"] for slot in json.load(answer)):
                return
        time.sleep(0.1)
    raise AssertionError("the abandoned request still runs")


def test_many_at_once():
    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=os.environ["METE_URL"] + "/v1", api_key="none", max_retries=0) as several:
            return await asyncio.gather(*(several.chat.completions.create(
                model=MODEL, messages=ASK, max_tokens=8, temperature=0) for _ in range(12)))

    answers = asyncio.run(all_of_them())
    assert len({a.choices[0].message.content for a in answers}) == 1


def test_errors_are_the_clients_own():
    with pytest.raises(openai.NotFoundError) as e:
        client.chat.completions.create(model="no-such-model", messages=ASK)
    assert e.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model=MODEL, messages=ASK, temperature=-3)
    assert e.value.param == "temperature"
