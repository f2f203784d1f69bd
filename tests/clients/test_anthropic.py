"""The official Anthropic Python client against a running server (METE_URL)."""
import asyncio
import os

import anthropic
import pytest

client = anthropic.Anthropic(base_url=os.environ["METE_URL"], api_key="none", max_retries=0)
MODEL = os.environ.get("METE_MODEL", "mete")
ASK = [{"role": "user", "content": "Say hello."}]


def test_messages_whole_and_streamed():
    whole = client.messages.create(model=MODEL, max_tokens=16, messages=ASK, system="Be brief.")
    assert whole.content[0].type == "text"
    assert whole.stop_reason in ("end_turn", "max_tokens")
    with client.messages.stream(model=MODEL, max_tokens=16, messages=ASK, system="Be brief.") as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_count_tokens():
    count = client.messages.count_tokens(model=MODEL, messages=ASK).input_tokens
    usage = client.messages.create(model=MODEL, max_tokens=1, messages=ASK).usage
    assert count == usage.input_tokens + usage.cache_read_input_tokens


def test_tool_results_and_stop_sequences():
    answer = client.messages.create(
        model=MODEL, max_tokens=32, stop_sequences=["e"],
        tools=[{"name": "clock", "description": "the time", "input_schema": {"type": "object", "properties": {}}}],
        tool_choice={"type": "none"},
        messages=[{"role": "user", "content": "What time is it?"},
                  {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "clock", "input": {}}]},
                  {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "noon"}]}])
    assert answer.stop_reason in ("end_turn", "max_tokens", "stop_sequence")


CLOCK = {"name": "clock", "description": "the time in a zone", "input_schema": {
    "type": "object", "properties": {"zone": {"enum": ["UTC", "CET"]}}, "required": ["zone"], "additionalProperties": False}}


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "clock"}])
def test_tool_use_whole_and_streamed(choice):
    settings = {"model": MODEL, "max_tokens": 100, "tools": [CLOCK], "tool_choice": choice,
                "messages": [{"role": "user", "content": "What time is it in UTC?"}]}
    whole = client.messages.create(**settings)
    assert whole.stop_reason == "tool_use"
    use = whole.content[-1]
    assert use.type == "tool_use" and use.name == "clock" and use.input["zone"] in ("UTC", "CET")
    with client.messages.stream(**settings) as stream:
        final = stream.get_final_message()
    assert (final.stop_reason, final.content[-1].name, final.content[-1].input) == ("tool_use", use.name, use.input)
    counted = client.messages.count_tokens(model=MODEL, messages=settings["messages"], tools=[CLOCK])
    assert counted.input_tokens >= client.messages.count_tokens(model=MODEL, messages=settings["messages"]).input_tokens


def test_events_in_order():
    events = [e.type for e in client.messages.create(model=MODEL, max_tokens=8, messages=ASK, stream=True) if e.type != "ping"]
    assert events[:2] == ["message_start", "content_block_start"]
    assert events[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_many_at_once():
    async def all_of_them():
        async with anthropic.AsyncAnthropic(base_url=os.environ["METE_URL"], api_key="none", max_retries=0) as several:
            return await asyncio.gather(*(several.messages.create(model=MODEL, max_tokens=8, messages=ASK) for _ in range(12)))

    assert len({a.content[0].text for a in asyncio.run(all_of_them())}) == 1


def test_errors_are_the_clients_own():
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="no-such-model", max_tokens=4, messages=ASK)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model=MODEL, max_tokens=4, messages=ASK, extra_body={"temperature": -3})
