// OpenAI's Responses API for text, brought to the form that chat templates expect.
#include "server/generation.h"

namespace mete {
namespace {

const Json& at(const Json& object, const char* name) {
  static const Json kNull = nullptr;
  const auto it = object.find(name);
  return it == object.end() ? kNull : *it;
}

std::optional<ApiError> item_text(const Json& content, const std::string& path, std::string& out) {
  if (content.is_string()) {
    out = content.get<std::string>();
    return std::nullopt;
  }
  if (!content.is_array()) return bad_field(path, content, "a string or an array of parts");
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string where = fmt::format("{}[{}]", path, i);
    if (!content[i].is_object()) return bad_field(where, content[i], "an object with type and text");
    const Json& type = at(content[i], "type");
    if (type == "input_image" || type == "input_file" || type == "input_audio") {
      return unsupported_field(where + ".type", type,
                               "input_text: images and files are not supported, nor fetched");
    }
    const bool refusal = type == "refusal";
    if (type != "input_text" && type != "output_text" && type != "text" && !refusal) {
      return bad_field(where + ".type", type, "input_text or output_text");
    }
    const Json& text = at(content[i], refusal ? "refusal" : "text");
    if (!text.is_string()) return bad_field(where + ".text", text, "a string");
    if (i > 0) out += '\n';
    out += text.get<std::string>();
  }
  return std::nullopt;
}

std::optional<ApiError> read_item(const Json& item, const std::string& path, Generation& out) {
  if (!item.is_object()) return bad_field(path, item, "an object");
  const Json& type = at(item, "type");
  if (type == "function_call") {
    for (const char* name : {"name", "call_id", "arguments"}) {
      if (!at(item, name).is_string()) return bad_field(path + "." + name, at(item, name), "a string");
    }
    Json call = {{"type", "function"},
                 {"function", {{"name", item["name"]}, {"arguments", tool_arguments(item["arguments"])}}},
                 {"id", item["call_id"]}};
    Json& messages = out.messages;
    if (!messages.empty() && messages.back().contains("tool_calls")) {
      messages.back()["tool_calls"].push_back(std::move(call));
    } else {
      messages.push_back(
          {{"role", "assistant"}, {"content", ""}, {"tool_calls", Json::array({std::move(call)})}});
    }
    return std::nullopt;
  }
  if (type == "function_call_output") {
    if (!at(item, "call_id").is_string())
      return bad_field(path + ".call_id", at(item, "call_id"), "a string");
    std::string text;
    if (auto error = item_text(at(item, "output"), path + ".output", text)) return error;
    out.messages.push_back({{"role", "tool"}, {"content", text}, {"tool_call_id", item["call_id"]}});
    return std::nullopt;
  }
  if (type == "reasoning") {  // of an earlier turn: chat templates leave it out
    out.ignored_fields.push_back(path);
    return std::nullopt;
  }
  if (!type.is_null() && type != "message") {
    return unsupported_field(path + ".type", type,
                             "message, function_call, function_call_output or reasoning");
  }
  const Json& role = at(item, "role");
  if (role != "user" && role != "assistant" && role != "system" && role != "developer") {
    return bad_field(path + ".role", role, "user, assistant, system or developer");
  }
  std::string text;
  if (auto error = item_text(at(item, "content"), path + ".content", text)) return error;
  out.messages.push_back({{"role", role == "developer" ? Json("system") : role}, {"content", text}});
  return std::nullopt;
}

void read_input(Fields& fields, Generation& out) {
  std::string instructions;
  fields.read("instructions", instructions);
  if (!instructions.empty()) out.messages.push_back({{"role", "system"}, {"content", instructions}});
  const Json* input = fields.find("input");
  if (fields.error()) return;
  if (input == nullptr) return fields.fail("input", nullptr, "a string or an array of items");
  if (input->is_string()) {
    if (input->get_ref<const std::string&>().empty())
      return fields.fail("input", *input, "a text that is not empty");
    out.messages.push_back({{"role", "user"}, {"content", *input}});
    return;
  }
  fields.read_array("input", static_cast<size_t>(kMaxMessages), input);
  if (fields.error()) return;
  if (input->empty()) return fields.fail("input", *input, "a string or an array of at least one item");
  for (size_t i = 0; i < input->size(); ++i) {
    if (auto error = read_item((*input)[i], fmt::format("input[{}]", i), out)) return fields.fail(*error);
  }
  check_messages(fields, "input", out);
}

void read_tools(Fields& fields, Generation& out) {
  const Json* tools = nullptr;
  fields.read_array("tools", static_cast<size_t>(kMaxTools), tools);
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    const Json& tool = (*tools)[i];
    const std::string where = fmt::format("tools[{}]", i);
    if (!tool.is_object() || at(tool, "type") != "function") {
      return fields.fail(
          unsupported_field(where + ".type", tool.is_object() ? at(tool, "type") : tool, "function"));
    }
    if (!at(tool, "name").is_string())
      return fields.fail(bad_field(where + ".name", at(tool, "name"), "a string"));
    Json function = {{"name", tool["name"]}};
    if (at(tool, "description").is_string()) function["description"] = tool["description"];
    if (at(tool, "parameters").is_object()) function["parameters"] = tool["parameters"];
    read_strict(fields, tool, where, i, out);
    out.tools.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
}

void read_text_format(Fields& fields, Generation& out) {
  const Json* text = nullptr;
  fields.read_object("text", text);
  if (text == nullptr) return;
  const Json& format = at(*text, "format");
  if (format.is_null()) return;
  // The schema lies beside the type here, and below "json_schema" in response_format.
  Json moved = {{"response_format", format}};
  if (format.is_object() && at(format, "type") == "json_schema") {
    moved["response_format"] = {{"type", "json_schema"}, {"json_schema", format}};
  }
  Fields inner(moved);
  read_output_format(inner, out);
  if (inner.error()) {
    ApiError error = *inner.error();
    error.field = "text.format";
    fields.fail(error);
  }
  out.format.field = "text.format";
}

void refuse_stored_fields(Fields& fields) {
  fields.only("previous_response_id", nullptr, "null: responses are not kept");
  fields.only("conversation", nullptr, "null: conversations are not kept");
  fields.only("background", false, "false");
  fields.only("truncation", "disabled", "disabled: a prompt that does not fit is an error");
  fields.only("prompt", nullptr, "null: there are no stored prompts");
  const Json* tier = fields.find("service_tier");
  if (tier != nullptr && *tier != "auto" && *tier != "default") {
    fields.fail(unsupported_field("service_tier", *tier, "auto or default"));
  }
}

}  // namespace

ApiResult<Generation> parse_responses(std::string_view body, const ApiDefaults& defaults) {
  ApiResult<Json> json = parse_body(body);
  if (!json) return json.error();
  Generation out = begin_generation(Api::kResponses, defaults);
  Fields fields(*json);
  fields.read("model", out.model);
  read_input(fields, out);
  read_tools(fields, out);
  fields.read("parallel_tool_calls", out.parallel_tool_calls);
  if (const Json* choice = fields.find("tool_choice")) {
    Json holder = {{"tools", out.tools}, {"tool_choice", *choice}};
    Generation scratch;
    Fields inner(holder);
    read_openai_tools(inner, scratch);
    if (inner.error()) fields.fail(*inner.error());
    out.tool_choice = scratch.tool_choice;
    out.tool_name = scratch.tool_name;
  }
  fields.read_integer("max_output_tokens", 1, kMaxTokensField, out.max_tokens);
  int32_t top = -1;
  fields.read_integer("top_logprobs", 0, kMaxTopLogprobs, top);
  if (top > 0)
    fields.fail(unsupported_field("top_logprobs", top, "0; /v1/chat/completions has log-probabilities"));
  read_stops(fields, "stop", out);
  read_sampling(fields, defaults, out);
  read_text_format(fields, out);
  const Json* reasoning = nullptr;
  fields.read_object("reasoning", reasoning);
  if (reasoning != nullptr && at(*reasoning, "effort").is_string()) {
    out.template_variables["reasoning_effort"] = (*reasoning)["effort"];
  }
  refuse_stored_fields(fields);
  if (out.n != 1) fields.fail(unsupported_field("n", out.n, "1"));
  if (fields.error()) return *fields.error();
  for (const char* name : {"instructions", "metadata", "tools", "tool_choice", "parallel_tool_calls",
                           "max_output_tokens", "temperature", "top_p", "text", "reasoning"}) {
    if (json->contains(name)) out.echo[name] = (*json)[name];
  }
  for (std::string& name : fields.unread()) {
    if (name != "metadata") out.ignored_fields.push_back(std::move(name));
  }
  return out;
}

}  // namespace mete
