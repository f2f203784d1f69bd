// Anthropic's Messages API, brought to the form that chat templates expect.
#include "server/generation.h"

namespace mete {
namespace {

const Json& at(const Json& object, const char* name) {
  static const Json kNull = nullptr;
  const auto it = object.find(name);
  return it == object.end() ? kNull : *it;
}

std::optional<ApiError> block_type(const Json& block, const std::string& path, std::string& type) {
  if (!block.is_object()) return bad_field(path, block, "an object with a type");
  if (!at(block, "type").is_string()) return bad_field(path + ".type", at(block, "type"), "a string");
  type = at(block, "type").get<std::string>();
  if (type == "image" || type == "document") {
    return unsupported_field(path + ".type", type,
                             "text: images and documents are not supported, nor fetched");
  }
  return std::nullopt;
}

/// A string, or blocks of type text.
std::optional<ApiError> plain_text(const Json& content, const std::string& path, std::string& out) {
  if (content.is_string()) {
    out = content.get<std::string>();
    return std::nullopt;
  }
  if (!content.is_array()) return bad_field(path, content, "a string or an array of text blocks");
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string where = fmt::format("{}[{}]", path, i);
    std::string type;
    if (auto error = block_type(content[i], where, type)) return error;
    if (type != "text") return bad_field(where + ".type", type, "text");
    if (!at(content[i], "text").is_string())
      return bad_field(where + ".text", at(content[i], "text"), "a string");
    if (i > 0) out += '\n';
    out += at(content[i], "text").get<std::string>();
  }
  return std::nullopt;
}

/// What the blocks of one message add up to.
struct Blocks {
  std::string text, reasoning;
  Json calls = Json::array(), results = Json::array();
};

std::optional<ApiError> read_block(const Json& block, const std::string& where, const std::string& role,
                                   Blocks& out) {
  std::string type;
  if (auto error = block_type(block, where, type)) return error;
  if (type == "text") {
    if (!at(block, "text").is_string()) return bad_field(where + ".text", at(block, "text"), "a string");
    if (!out.text.empty()) out.text += '\n';
    out.text += at(block, "text").get<std::string>();
  } else if (type == "thinking" && role == "assistant") {
    if (!at(block, "thinking").is_string())
      return bad_field(where + ".thinking", at(block, "thinking"), "a string");
    out.reasoning += at(block, "thinking").get<std::string>();
  } else if (type == "tool_use" && role == "assistant") {
    if (!at(block, "name").is_string()) return bad_field(where + ".name", at(block, "name"), "a string");
    if (!at(block, "id").is_string()) return bad_field(where + ".id", at(block, "id"), "a string");
    if (!at(block, "input").is_object()) return bad_field(where + ".input", at(block, "input"), "an object");
    out.calls.push_back({{"type", "function"},
                         {"function", {{"name", at(block, "name")}, {"arguments", at(block, "input")}}},
                         {"id", at(block, "id")}});
  } else if (type == "tool_result" && role == "user") {
    if (!at(block, "tool_use_id").is_string()) {
      return bad_field(where + ".tool_use_id", at(block, "tool_use_id"), "a string");
    }
    std::string result;
    if (!at(block, "content").is_null()) {
      if (auto error = plain_text(at(block, "content"), where + ".content", result)) return error;
    }
    out.results.push_back(
        {{"role", "tool"}, {"content", result}, {"tool_call_id", at(block, "tool_use_id")}});
  } else {
    return bad_field(where + ".type", type,
                     role == "user" ? "text or tool_result" : "text, thinking or tool_use");
  }
  return std::nullopt;
}

std::optional<ApiError> read_message(const Json& message, const std::string& path, Json& messages) {
  if (!message.is_object()) return bad_field(path, message, "an object with role and content");
  const Json& role = at(message, "role");
  if (role != "user" && role != "assistant") return bad_field(path + ".role", role, "user or assistant");
  const Json& content = at(message, "content");
  if (content.is_string()) {
    messages.push_back({{"role", role}, {"content", content}});
    return std::nullopt;
  }
  if (!content.is_array()) return bad_field(path + ".content", content, "a string or an array of blocks");
  Blocks blocks;
  for (size_t i = 0; i < content.size(); ++i) {
    if (auto error = read_block(content[i], fmt::format("{}.content[{}]", path, i), role, blocks))
      return error;
  }
  for (Json& result : blocks.results) messages.push_back(std::move(result));
  if (!blocks.results.empty() && blocks.text.empty()) return std::nullopt;
  Json out = {{"role", role}, {"content", blocks.text}};
  if (!blocks.reasoning.empty()) out["reasoning_content"] = blocks.reasoning;
  if (!blocks.calls.empty()) out["tool_calls"] = std::move(blocks.calls);
  messages.push_back(std::move(out));
  return std::nullopt;
}

void read_conversation(Fields& fields, Generation& out) {
  if (const Json* system = fields.find("system")) {
    std::string text;
    if (auto error = plain_text(*system, "system", text)) return fields.fail(*error);
    if (!text.empty()) out.messages.push_back({{"role", "system"}, {"content", text}});
  }
  const Json* messages = nullptr;
  fields.read_array("messages", static_cast<size_t>(kMaxMessages), messages);
  if (fields.error()) return;
  if (messages == nullptr || messages->empty()) {
    return fields.fail("messages", messages == nullptr ? Json(nullptr) : *messages,
                       "an array of at least one message");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    if (auto error = read_message((*messages)[i], fmt::format("messages[{}]", i), out.messages)) {
      return fields.fail(*error);
    }
  }
  check_messages(fields, "messages", out);
  const Json& last = out.messages.back();
  out.continue_last = last["role"] == "assistant" && !last.contains("tool_calls");
}

void read_tools(Fields& fields, Generation& out) {
  const Json* tools = nullptr;
  fields.read_array("tools", static_cast<size_t>(kMaxTools), tools);
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    const Json& tool = (*tools)[i];
    const std::string where = fmt::format("tools[{}]", i);
    if (!tool.is_object() || !at(tool, "name").is_string())
      return fields.fail(bad_field(where, tool, "an object with a name"));
    if (!at(tool, "input_schema").is_object()) {
      return fields.fail(bad_field(where + ".input_schema", at(tool, "input_schema"), "a JSON schema"));
    }
    read_strict(fields, tool, where, i, out);
    out.tools.push_back(
        {{"type", "function"},
         {"function",
          {{"name", tool["name"]},
           {"description", at(tool, "description").is_string() ? tool["description"] : Json("")},
           {"parameters", tool["input_schema"]}}}});
  }
  const Json* choice = nullptr;
  fields.read_object("tool_choice", choice);
  if (choice == nullptr) return;
  const Json& type = at(*choice, "type");
  if (type == "none") out.tool_choice = ToolChoice::kNone;
  if (type == "any") out.tool_choice = ToolChoice::kRequired;
  if (type == "tool") {
    out.tool_choice = ToolChoice::kNamed;
    if (!at(*choice, "name").is_string())
      return fields.fail("tool_choice", at(*choice, "name"), "the name of a tool");
    out.tool_name = at(*choice, "name").get<std::string>();
    bool known = false;
    for (const Json& tool : out.tools) known = known || tool["function"]["name"] == out.tool_name;
    if (!known) return fields.fail("tool_choice", out.tool_name, "the name of one of the tools");
  }
  if (type != "none" && type != "any" && type != "tool" && type != "auto") {
    return fields.fail("tool_choice", type, "a type of auto, any, tool or none");
  }
  const Json& single = at(*choice, "disable_parallel_tool_use");
  if (!single.is_null() && !single.is_boolean()) {
    return fields.fail("tool_choice.disable_parallel_tool_use", single, "true or false");
  }
  out.parallel_tool_calls = single != true;
}

void read_thinking(Fields& fields, Generation& out) {
  const Json* thinking = nullptr;
  fields.read_object("thinking", thinking);
  if (thinking == nullptr) return;
  const Json& type = at(*thinking, "type");
  if (type != "enabled" && type != "disabled" && type != "adaptive") {
    return fields.fail("thinking", type, "a type of enabled, disabled or adaptive");
  }
  if (type != "adaptive") out.template_variables["enable_thinking"] = type == "enabled";
  if (thinking->contains("budget_tokens")) out.ignored_fields.push_back("thinking.budget_tokens");
}

}  // namespace

ApiResult<Generation> parse_messages(std::string_view body, const ApiDefaults& defaults, bool counting) {
  ApiResult<Json> json = parse_body(body);
  if (!json) return json.error();
  Generation out = begin_generation(Api::kMessages, defaults);
  Fields fields(*json);
  fields.read("model", out.model);
  read_conversation(fields, out);
  read_tools(fields, out);
  read_thinking(fields, out);
  fields.read_integer("max_tokens", 1, kMaxTokensField, out.max_tokens);
  if (!counting && fields.find("max_tokens") == nullptr) {
    fields.fail("max_tokens", nullptr, "an integer of at least 1");
  }
  read_stops(fields, "stop_sequences", out);
  read_sampling(fields, defaults, out);
  fields.only("mcp_servers", Json::array(), "an empty array");
  fields.only("container", nullptr, "null");
  const Json* tier = fields.find("service_tier");
  if (tier != nullptr && *tier != "auto" && *tier != "standard_only") {
    fields.fail(unsupported_field("service_tier", *tier, "auto"));
  }
  if (out.n != 1) fields.fail(unsupported_field("n", out.n, "1"));
  if (fields.error()) return *fields.error();
  for (std::string& name : fields.unread()) out.ignored_fields.push_back(std::move(name));
  return out;
}

}  // namespace mete
