"""The official Anthropic Python client against a running server (METE_URL)."""
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


def test_errors_are_the_clients_own():
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="no-such-model", max_tokens=4, messages=ASK)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(model=MODEL, max_tokens=4, messages=ASK, extra_body={"temperature": -3})
