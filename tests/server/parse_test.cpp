// What the request parsers take and refuse: every refusal names the field, what was found and what was
// expected.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/generation.h"

namespace mete {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ApiDefaults defaults() {
  ApiDefaults d;
  d.vocab = 1000;
  return d;
}

constexpr const char* kChat = R"("messages": [{"role": "user", "content": "Hi"}])";

std::string chat_with(const std::string& more) { return std::string("{") + kChat + ", " + more + "}"; }

struct Bad {
  const char* fields;
  const char* field;
  const char* expected;
};

class BadChatField : public ::testing::TestWithParam<Bad> {};

TEST_P(BadChatField, IsRefusedByName) {
  const Bad& bad = GetParam();
  const auto result = parse_chat(chat_with(bad.fields), defaults());
  ASSERT_FALSE(result) << bad.fields;
  EXPECT_EQ(result.error().status, 400);
  EXPECT_EQ(result.error().field, bad.field) << result.error().message;
  EXPECT_THAT(result.error().message, HasSubstr(bad.expected));
  EXPECT_THAT(result.error().message, HasSubstr("found"));
}

INSTANTIATE_TEST_SUITE_P(
    Values, BadChatField,
    ::testing::Values(
        Bad{R"("temperature": "hot")", "temperature", "a number"},
        Bad{R"("temperature": -1)", "temperature", "0"},
        Bad{R"("temperature": true)", "temperature", "a number"},
        Bad{R"("top_p": 1.5)", "top_p", "from 0 to 1"}, Bad{R"("top_k": 1.5)", "top_k", "an integer"},
        Bad{R"("top_k": 99999999999999999999)", "top_k", "an integer"},
        Bad{R"("max_tokens": -2)", "max_tokens", "an integer"},
        Bad{R"("max_tokens": 1e300)", "max_tokens", "an integer"},
        Bad{R"("max_tokens": "8")", "max_tokens", "an integer"}, Bad{R"("n": 0)", "n", "from 1 to"},
        Bad{R"("n": 100000)", "n", "from 1 to"}, Bad{R"("seed": -7)", "seed", "an integer"},
        Bad{R"("stop": [1])", "stop[0]", "a string"}, Bad{R"("stop": [""])", "stop", "not empty"},
        Bad{R"("stop": 5)", "stop", "an array"}, Bad{R"("stream": "yes")", "stream", "true or false"},
        Bad{R"("stream_options": [])", "stream_options", "an object"},
        Bad{R"("stream_options": {"include_usage": 1})", "stream_options.include_usage", "true or false"},
        Bad{R"("logit_bias": {"1000": 1})", "logit_bias", "0 to 999"},
        Bad{R"("logit_bias": {"-1": 1})", "logit_bias", "0 to 999"},
        Bad{R"("logit_bias": {"a": 1})", "logit_bias", "0 to 999"},
        Bad{R"("logit_bias": {"1": "x"})", "logit_bias", "numbers"},
        Bad{R"("logit_bias": [[1]])", "logit_bias", "pairs"},
        Bad{R"("logprobs": true, "top_logprobs": 1000)", "top_logprobs", "from 0 to"},
        Bad{R"("top_logprobs": 2)", "top_logprobs", "logprobs true"},
        Bad{R"("tools": [1])", "tools[0]", "function"},
        Bad{R"("tools": [{"type": "function", "function": {}}])", "tools[0].function", "a name"},
        Bad{R"("tool_choice": "sometimes")", "tool_choice", "auto"},
        Bad{R"("tool_choice": "required")", "tool_choice", "tools to choose from"},
        Bad{R"("tool_choice": {"type": "function", "function": {"name": "x"}})", "tool_choice",
            "one of the tools"},
        Bad{R"("response_format": "json")", "response_format", "an object"},
        Bad{R"("response_format": {"type": "xml"})", "response_format.type", "json_schema"},
        Bad{R"("response_format": {"type": "json_schema"})", "response_format.json_schema", "a schema"},
        Bad{R"("response_format": {"type": "json_object", "schema": 123})", "response_format.schema",
            "a JSON schema"},
        Bad{R"("grammar": 5)", "grammar", "a string"},
        Bad{R"("grammar": "root ::= x", "response_format": {"type": "json_object"})", "response_format",
            "one of"},
        Bad{R"("chat_template_kwargs": {"bos_token": "<s>"})", "chat_template_kwargs", "other than"},
        Bad{R"("samplers": ["magic"])", "samplers", ""}, Bad{R"("mirostat": 3)", "mirostat", "from 0 to 2"},
        Bad{R"("priority": 1e9)", "priority", "an integer"},
        Bad{R"("deadline_ms": 0)", "deadline_ms", "an integer"}));

class UnsupportedChatField : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(UnsupportedChatField, IsRefusedUnlessNeutral) {
  const auto result = parse_chat(chat_with(GetParam().first), defaults());
  ASSERT_FALSE(result) << GetParam().first;
  EXPECT_EQ(result.error().code, "unsupported_value") << result.error().message;
  EXPECT_TRUE(parse_chat(chat_with(GetParam().second), defaults())) << GetParam().second;
}

INSTANTIATE_TEST_SUITE_P(
    Values, UnsupportedChatField,
    ::testing::Values(std::pair(R"("store": true)", R"("store": false)"),
                      std::pair(R"("modalities": ["text", "audio"])", R"("modalities": ["text"])"),
                      std::pair(R"("service_tier": "flex")", R"("service_tier": "auto")"),
                      std::pair(R"("functions": [{"name": "f"}])", R"("functions": [])"),
                      std::pair(R"("id_slot": 3)", R"("id_slot": -1)"),
                      std::pair(R"("n_keep": 5)", R"("n_keep": 0)"),
                      std::pair(R"("lora": [{"id": 0}])", R"("lora": [])"),
                      std::pair(R"("chat_template": "x")", R"("chat_template": null)")));

TEST(ParseBody, RefusesWhatIsNotAJsonObject) {
  for (const char* body : {"", "{", "[1]", "null", "5", "{\"a\": 1} x", "{'a': 1}", "{\"a\": \"\xff\"}",
                           "{\"a\": 1e999}", "{\"a\": \"\xed\xa0\x80\"}", "\xef\xbb\xbf", "{\"a\": NaN}"}) {
    const auto result = parse_body(body);
    ASSERT_FALSE(result) << body;
    EXPECT_EQ(result.error().status, 400);
  }
  EXPECT_TRUE(parse_body("{}"));
}

TEST(ParseBody, RefusesAKeyThatComesTwiceByName) {
  const auto field = [](const std::string& body) {
    const auto result = parse_body(body);
    return result ? std::string("none") : result.error().code == "duplicate_key" ? result.error().field : "?";
  };
  EXPECT_EQ(field(R"({"a": 1, "b": {"a": 2}, "c": [{"a": 3}, {"a": 4}]})"), "none");
  EXPECT_EQ(field(R"({"a": 1, "b": 2, "a": 1})"), "a");
  EXPECT_EQ(field(R"({"a": null, "\u0061": 2})"), "a");
  EXPECT_EQ(field(R"({"m": [1, [], {"r": 1}, {"x": {"r": 1, "q": [{}], "r": 2}}]})"), "m[3].x.r");
  EXPECT_EQ(field(R"({"a": {"b": 1}, "a": {"c": 2}})"), "a");
  const auto twice = parse_chat(chat_with(R"("seed": 1, "seed": 2)"), defaults());
  ASSERT_FALSE(twice);
  EXPECT_EQ(twice.error().message, "seed: found twice in its object, expected once");
}

TEST(ParseBody, BoundsTheKeysOfAnObject) {
  const auto keys = [](int count) {
    std::string body = "{\"a\": {";
    for (int i = 0; i < count; ++i) body += fmt::format("{}\"{}\": 0", i > 0 ? "," : "", i);
    return body + "}}";
  };
  EXPECT_TRUE(parse_body(keys(2048)));
  const auto result = parse_body(keys(2049));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().field, "a.2048");
}

TEST(ParseBody, BoundsNesting) {
  const auto nested = [](int depth) {
    return "{\"a\": " + std::string(static_cast<size_t>(depth), '[') +
           std::string(static_cast<size_t>(depth), ']') + "}";
  };
  EXPECT_TRUE(parse_body(nested(63)));
  EXPECT_FALSE(parse_body(nested(64)));
  EXPECT_FALSE(parse_body(std::string(1 << 20, '[')));
  EXPECT_TRUE(parse_body("{\"a\": \"" + std::string(200, '[') + "\\\"[[\"}"));  // in a string nothing nests
}

TEST(ParseChat, RefusesBadMessages) {
  for (const char* messages :
       {"null", "\"text\"", "[]", "[123]", "[{}]", R"([{"role": 123}])",
        R"([{"role": "king", "content": "x"}])", R"([{"role": "user"}])",
        R"([{"role": "user", "content": 5}])", R"([{"role": "user", "content": [5]}])",
        R"([{"role": "user", "content": [{"type": "text"}]}])", R"([{"role": "user", "content": null}])",
        R"([{"role": "assistant", "content": null}])",
        R"([{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}])",
        R"([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}])"}) {
    const auto result = parse_chat(std::string("{\"messages\": ") + messages + "}", defaults());
    ASSERT_FALSE(result) << messages;
    EXPECT_EQ(result.error().field.substr(0, 8), "messages") << messages;
  }
}

TEST(ParseChat, RefusesImagesByUrlAndInline) {
  for (const char* url : {"http://127.0.0.1/x.png", "file:///etc/passwd", "data:image/png;base64,AAAA"}) {
    const auto result = parse_chat(fmt::format(R"({{"messages": [{{"role": "user", "content": [
        {{"type": "image_url", "image_url": {{"url": "{}"}}}}]}}]}})",
                                               url),
                                   defaults());
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, "unsupported_value");
    EXPECT_EQ(result.error().field, "messages[0].content[0].type");
  }
}

TEST(ParseChat, ReadsAWholeRequest) {
  const auto r =
      parse_chat(chat_with(R"("model": "m", "max_completion_tokens": 9, "n": 3, "stop": "END", "seed": 7,
      "temperature": 0.5, "top_p": 0.25, "top_k": 3, "min_p": 0.125, "presence_penalty": 1, "frequency_penalty": -1,
      "logit_bias": {"5": -100, "6": 1.5}, "logprobs": true, "top_logprobs": 4, "stream": true,
      "stream_options": {"include_usage": true, "odd": 1}, "priority": -2, "deadline_ms": 1500, "cache_salt": "s",
      "user": "u", "surprise": {"a": 1})"),
                 defaults());
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(r->model, "m");
  EXPECT_EQ(r->max_tokens, 9);
  EXPECT_EQ(r->n, 3);
  EXPECT_THAT(r->stops, ElementsAre("END"));
  EXPECT_EQ(r->sampling.seed, 7u);
  EXPECT_EQ(r->sampling.temperature, 0.5f);
  EXPECT_EQ(r->sampling.top_k, 3);
  EXPECT_THAT(r->sampling.logit_bias, ElementsAre(std::pair(5, -100.0f), std::pair(6, 1.5f)));
  EXPECT_EQ(r->top_logprobs, 4);
  EXPECT_TRUE(r->stream && r->include_usage);
  EXPECT_EQ(r->priority, -2);
  EXPECT_EQ(r->deadline_ms, 1500);
  EXPECT_EQ(r->cache_salt, "s");
  EXPECT_THAT(r->ignored_fields, ElementsAre("stream_options.odd", "user", "surprise"));
}

TEST(ParseTools, StrictIsReadWhereEachApiHasIt) {
  const auto chat = parse_chat(chat_with(R"("tools": [{"type": "function", "function": {"name": "f"}},
      {"type": "function", "function": {"name": "g", "strict": true}}])"),
                               defaults());
  ASSERT_TRUE(chat) << chat.error().message;
  ASSERT_EQ(chat->strict_tools.size(), 1u);
  EXPECT_EQ(chat->strict_tools[0].index, 1u);
  EXPECT_EQ(chat->strict_tools[0].field, "tools[1].function.strict");
  const auto responses = parse_responses(
      R"({"input": "q", "tools": [{"type": "function", "name": "f", "strict": true}]})", defaults());
  ASSERT_TRUE(responses) << responses.error().message;
  EXPECT_EQ(responses->strict_tools.at(0).field, "tools[0].strict");
  const auto bad = parse_responses(
      R"({"input": "q", "tools": [{"type": "function", "name": "f", "strict": "yes"}]})", defaults());
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().field, "tools[0].strict");
}

TEST(ParseChat, NullIsAbsent) {
  const auto r =
      parse_chat(chat_with(R"("temperature": null, "stop": null, "tools": null, "response_format": null,
      "logit_bias": null, "max_tokens": null, "functions": null)"),
                 defaults());
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(r->sampling.temperature, SamplingParams{}.temperature);
  EXPECT_TRUE(r->ignored_fields.empty());
}

TEST(ParseChat, BringsMessagesToTheFormOfTemplates) {
  const auto r = parse_chat(R"({"messages": [
      {"role": "developer", "content": "be brief"},
      {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
      {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function",
        "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
      {"role": "tool", "tool_call_id": "c1", "content": "42"}]})",
                            defaults());
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(r->messages, Json::parse(R"([
      {"role": "system", "content": "be brief"}, {"role": "user", "content": "a\nb"},
      {"role": "assistant", "content": "", "tool_calls": [{"type": "function",
        "function": {"name": "f", "arguments": {"x": 1}}, "id": "c1"}]},
      {"role": "tool", "content": "42", "tool_call_id": "c1"}])"));
  EXPECT_FALSE(r->continue_last);
}

TEST(ParseChat, AnAssistantMessageAtTheEndGoesOn) {
  const std::string messages =
      R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])";
  const auto plain = parse_chat(messages + "}", defaults());
  ASSERT_TRUE(plain);
  EXPECT_TRUE(plain->continue_last);
  const auto anew = parse_chat(messages + R"(, "add_generation_prompt": true})", defaults());
  ASSERT_TRUE(anew);
  EXPECT_FALSE(anew->continue_last);
  EXPECT_FALSE(parse_chat(messages + R"(, "add_generation_prompt": true, "continue_final_message": true})",
                          defaults()));
  EXPECT_FALSE(parse_chat(chat_with(R"("continue_final_message": true)"), defaults()));
}

TEST(ParseCompletion, ReadsEveryFormOfPrompt) {
  const auto prompts = [](const std::string& prompt) {
    const auto r = parse_completion("{\"prompt\": " + prompt + "}", defaults());
    return r ? r->prompts.size() : 0;
  };
  EXPECT_EQ(prompts("\"a\""), 1u);
  EXPECT_EQ(prompts("[\"a\", \"b\"]"), 2u);
  EXPECT_EQ(prompts("[1, 2]"), 1u);
  EXPECT_EQ(prompts("[[1, 2], [3]]"), 2u);
  EXPECT_EQ(prompts("[[1], \"b\"]"), 2u);
  EXPECT_EQ(prompts("[1, \"b\", 2]"), 1u);
  EXPECT_EQ(prompts(R"({"prompt_string": "a"})"), 1u);
  for (const char* bad : {"[]", "5", "null", "[-1]", "[1000]", "[1.5]", "[[]]", "true", "[4294967297]",
                          R"({"prompt_string": "a", "multimodal_data": "x"})"}) {
    EXPECT_EQ(prompts(bad), 0u) << bad;
  }
}

TEST(ParseCompletion, BoundsTheNumberOfChoices) {
  std::string prompts = "[\"a\"";
  for (int i = 0; i < 99; ++i) prompts += ", \"a\"";
  EXPECT_TRUE(parse_completion("{\"prompt\": " + prompts + "]}", defaults()));
  const auto r = parse_completion("{\"n\": 5, \"prompt\": " + prompts + "]}", defaults());
  ASSERT_FALSE(r);
  EXPECT_EQ(r.error().field, "n");
}

TEST(ParseMessages, BringsAnthropicsFormToTemplates) {
  const auto r = parse_messages(R"({"model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "s"}],
      "stop_sequences": ["x"], "tools": [{"name": "f", "input_schema": {"type": "object"}}],
      "tool_choice": {"type": "any"}, "metadata": {"user_id": "u"}, "messages": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [{"type": "text", "text": "t"},
          {"type": "tool_use", "id": "i", "name": "f", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "text", "text": "here"},
          {"type": "tool_result", "tool_use_id": "i", "content": [{"type": "text", "text": "42"}]}]}]})",
                                defaults());
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(r->messages, Json::parse(R"([{"role": "system", "content": "s"}, {"role": "user", "content": "q"},
      {"role": "assistant", "content": "t", "tool_calls": [{"type": "function",
        "function": {"name": "f", "arguments": {"a": 1}}, "id": "i"}]},
      {"role": "tool", "content": "42", "tool_call_id": "i"}, {"role": "user", "content": "here"}])"));
  EXPECT_EQ(r->tool_choice, ToolChoice::kRequired);
  EXPECT_THAT(r->stops, ElementsAre("x"));
  EXPECT_THAT(r->ignored_fields, ElementsAre("metadata"));
}

TEST(ParseMessages, RefusesByName) {
  const auto field = [](const std::string& body, bool counting = false) {
    const auto r = parse_messages(body, defaults(), counting);
    return r ? std::string("none") : r.error().field;
  };
  const std::string hi = R"("messages": [{"role": "user", "content": "q"}])";
  EXPECT_EQ(field("{" + hi + "}"), "max_tokens");
  EXPECT_EQ(field("{" + hi + "}", true), "none");
  EXPECT_EQ(field("{\"max_tokens\": 0, " + hi + "}"), "max_tokens");
  EXPECT_EQ(field(R"({"max_tokens": 5, "messages": []})"), "messages");
  EXPECT_EQ(field(R"({"max_tokens": 5, "messages": [{"role": "system", "content": "q"}]})"),
            "messages[0].role");
  EXPECT_EQ(field(R"({"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "image"}]}]})"),
            "messages[0].content[0].type");
  EXPECT_EQ(field(R"({"max_tokens": 5, "messages": [{"role": "user", "content": [{"type": "tool_use"}]}]})"),
            "messages[0].content[0].type");
}

TEST(ParseResponses, ReadsTextAndItems) {
  const auto text = parse_responses(
      R"({"input": "q", "instructions": "s", "max_output_tokens": 5, "store": true})", defaults());
  ASSERT_TRUE(text) << text.error().message;
  EXPECT_EQ(text->messages,
            Json::parse(R"([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}])"));
  EXPECT_EQ(text->max_tokens, 5);
  EXPECT_THAT(text->ignored_fields, ElementsAre("store"));
  const auto items = parse_responses(R"({"input": [
      {"role": "user", "content": [{"type": "input_text", "text": "q"}]},
      {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
      {"type": "function_call_output", "call_id": "c", "output": "42"}]})",
                                     defaults());
  ASSERT_TRUE(items) << items.error().message;
  EXPECT_EQ(items->messages[1]["tool_calls"][0]["function"]["name"], "f");
  EXPECT_EQ(items->messages[2]["role"], "tool");
  for (const char* bad :
       {"{}", R"({"input": ""})", R"({"input": []})", R"({"input": "q", "previous_response_id": "r"})",
        R"({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "http://x"}]}]})",
        R"({"input": "q", "background": true})", R"({"input": "q", "tools": [{"type": "web_search"}]})"}) {
    EXPECT_FALSE(parse_responses(bad, defaults())) << bad;
  }
}

TEST(ParseEmbeddings, ReadsInputsAndRefusesOthers) {
  const auto r = parse_embeddings(R"({"input": ["a", "b"], "encoding_format": "base64"})", defaults());
  ASSERT_TRUE(r);
  EXPECT_EQ(r->inputs.size(), 2u);
  EXPECT_TRUE(r->base64);
  for (const char* bad :
       {"{}", R"({"input": []})", R"({"input": "a", "encoding_format": "hex"})", R"({"input": [[]]})",
        R"({"input": "a", "dimensions": 8})", R"({"input": {"a": 1}})", R"({"input": {"content": "a"}})",
        R"({"input": ["a", {"content": [{"type": "text"}]}]})",
        R"({"content": "a", "encoding_format": "base64"})"}) {
    EXPECT_FALSE(parse_embeddings(bad, defaults())) << bad;
  }
  const auto parts = parse_embeddings(
      R"({"input": ["a", {"content": [{"type": "text", "text": "b "}, {"type": "text", "text": "c"}]}]})",
      defaults());
  ASSERT_TRUE(parts) << parts.error().message;
  ASSERT_EQ(parts->inputs.size(), 2u);
  EXPECT_EQ(parts->inputs[1][0].text, "b c");
  EXPECT_FALSE(parts->llama_form);
  EXPECT_TRUE(parse_embeddings(R"({"content": "a"})", defaults())->llama_form);
  EXPECT_TRUE(parse_embeddings(R"({"input": "a"})", defaults(), true)->llama_form);
  const auto image = parse_embeddings(
      R"({"input": [{"content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}]})", defaults());
  ASSERT_FALSE(image);
  EXPECT_EQ(image.error().field, "input[0].content[0].type");
}

TEST(ParseDetokenize, ChecksEveryId) {
  EXPECT_THAT(*parse_detokenize(R"({"tokens": [0, 999]})", defaults()), ElementsAre(0, 999));
  for (const char* bad : {"{}", R"({"tokens": [1000]})", R"({"tokens": [-1]})", R"({"tokens": ["a"]})",
                          R"({"tokens": [18446744073709551615]})"}) {
    EXPECT_FALSE(parse_detokenize(bad, defaults())) << bad;
  }
}

}  // namespace
}  // namespace mete
