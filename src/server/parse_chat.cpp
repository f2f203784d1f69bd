#include <algorithm>
#include <array>

#include "server/generation.h"

namespace mete {
namespace {

constexpr std::array kRoles = {"system", "developer", "user", "assistant", "tool"};

/// Text of a message: a string, or parts of type text. Other parts are refused by name.
std::optional<ApiError> message_text(const Json& content, const std::string& path, std::string& out) {
  if (content.is_string()) {
    out = content.get<std::string>();
    return std::nullopt;
  }
  if (!content.is_array()) return bad_field(path, content, "a string or an array of parts");
  for (size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string where = fmt::format("{}[{}]", path, i);
    if (!part.is_object()) return bad_field(where, part, "an object with type and text");
    const auto type = part.find("type");
    if (type == part.end() || !type->is_string()) {
      return bad_field(where + ".type", type == part.end() ? Json(nullptr) : *type, "a string");
    }
    if (*type == "image_url" || *type == "input_audio" || *type == "input_video" || *type == "file") {
      return unsupported_field(where + ".type", *type,
                               "text: images, audio and files are not supported, nor fetched");
    }
    const bool refusal = *type == "refusal";
    if (*type != "text" && !refusal) return bad_field(where + ".type", *type, "text");
    const auto text = part.find(refusal ? "refusal" : "text");
    if (text == part.end() || !text->is_string()) {
      return bad_field(where + ".text", text == part.end() ? Json(nullptr) : *text, "a string");
    }
    if (i > 0) out += '\n';
    out += text->get<std::string>();
  }
  return std::nullopt;
}

std::optional<ApiError> message_tool_calls(const Json& calls, const std::string& path, Json& out) {
  if (!calls.is_array()) return bad_field(path, calls, "an array of tool calls");
  out = Json::array();
  for (size_t i = 0; i < calls.size(); ++i) {
    const std::string where = fmt::format("{}[{}]", path, i);
    if (!calls[i].is_object()) return bad_field(where, calls[i], "an object");
    const auto function = calls[i].find("function");
    if (function == calls[i].end() || !function->is_object()) {
      return bad_field(where + ".function", function == calls[i].end() ? Json(nullptr) : *function,
                       "an object");
    }
    const auto name = function->find("name");
    if (name == function->end() || !name->is_string()) {
      return bad_field(where + ".function.name", name == function->end() ? Json(nullptr) : *name, "a string");
    }
    const auto arguments = function->find("arguments");
    const Json given = arguments == function->end() ? Json(Json::object()) : *arguments;
    if (!given.is_string() && !given.is_object()) {
      return bad_field(where + ".function.arguments", given, "a string of JSON");
    }
    Json call = {{"type", "function"}, {"function", {{"name", *name}, {"arguments", tool_arguments(given)}}}};
    if (const auto id = calls[i].find("id"); id != calls[i].end() && id->is_string()) call["id"] = *id;
    out.push_back(std::move(call));
  }
  return std::nullopt;
}

std::optional<ApiError> read_message(const Json& message, const std::string& path, Json& out) {
  if (!message.is_object()) return bad_field(path, message, "an object with role and content");
  Fields fields(message, path);
  std::string role;
  fields.read("role", role);
  if (fields.error()) return fields.error();
  if (std::find(kRoles.begin(), kRoles.end(), role) == kRoles.end()) {
    return bad_field(path + ".role", role.empty() ? Json(nullptr) : Json(role),
                     "system, developer, user, assistant or tool");
  }
  out = {{"role", role == "developer" ? "system" : role}};
  const Json* calls = fields.find("tool_calls");
  const Json* content = fields.find("content");
  std::string text;
  if (content != nullptr) {
    if (auto error = message_text(*content, path + ".content", text)) return error;
  } else if (role != "assistant" || (calls == nullptr && !fields.find("reasoning_content"))) {
    return bad_field(path + ".content", nullptr, "a string or an array of parts");
  }
  out["content"] = content == nullptr && calls != nullptr ? Json("") : Json(text);
  if (calls != nullptr) {
    Json read;
    if (auto error = message_tool_calls(*calls, path + ".tool_calls", read)) return error;
    if (!read.empty()) out["tool_calls"] = std::move(read);
  }
  for (const char* name : {"name", "tool_call_id", "reasoning_content"}) {
    std::string value;
    fields.read(name, value);
    if (fields.error()) return fields.error();
    if (!value.empty()) out[name] = value;
  }
  return std::nullopt;
}

/// Fields of OpenAI's API that mete knows and does not have.
void refuse_openai_fields(Fields& fields) {
  fields.only("functions", Json::array(), "tools");
  fields.only("function_call", "none", "tool_choice");
  fields.only("modalities", Json::array({"text"}), "[\"text\"]");
  fields.only("audio", nullptr, "null: audio is not supported");
  fields.only("prediction", nullptr, "null: predicted outputs are not supported");
  fields.only("web_search_options", nullptr, "null: there is no web search");
  fields.only("store", false, "false: completions are not kept");
  const Json* tier = fields.find("service_tier");
  if (tier != nullptr && *tier != "auto" && *tier != "default") {
    fields.fail(unsupported_field(fields.path("service_tier"), *tier, "auto or default"));
  }
}

void read_template_fields(Fields& fields, Generation& out) {
  const Json* variables = nullptr;
  fields.read_object("chat_template_kwargs", variables);
  if (variables != nullptr) {
    for (const auto& [key, value] : variables->items()) {
      // Strings named *_token are the model's own to the template and may become special tokens.
      const bool token = key.size() >= 6 && key.compare(key.size() - 6, 6, "_token") == 0;
      if (token || key == "messages" || key == "tools" || key == "add_generation_prompt") {
        fields.fail(bad_field("chat_template_kwargs", key,
                              "variables other than messages, tools, "
                              "add_generation_prompt and *_token"));
      }
      out.template_variables[key] = value;
    }
  }
  std::string effort;
  fields.read("reasoning_effort", effort);
  if (!effort.empty()) out.template_variables["reasoning_effort"] = effort;
  fields.only("chat_template", nullptr, "null: the template is the server's");
}

void read_continuation(Fields& fields, Generation& out) {
  const bool last_is_assistant = !out.messages.empty() && out.messages.back()["role"] == "assistant" &&
                                 !out.messages.back().contains("tool_calls");
  const Json* add = fields.find("add_generation_prompt");
  const Json* go_on = fields.find("continue_final_message");
  fields.read("add_generation_prompt", out.add_generation_prompt);
  out.continue_last = last_is_assistant && (add == nullptr || !out.add_generation_prompt);
  fields.read("continue_final_message", out.continue_last);
  if (fields.error()) return;
  if (out.continue_last && add != nullptr && out.add_generation_prompt) {
    return fields.fail("continue_final_message", *go_on, "false with add_generation_prompt true");
  }
  if (out.continue_last && !last_is_assistant) {
    return fields.fail("continue_final_message", *go_on, "an assistant message as the last one");
  }
}

void read_chat_logprobs(Fields& fields, Generation& out) {
  bool wanted = false;
  fields.read("logprobs", wanted);
  int32_t top = -1;
  fields.read_integer("top_logprobs", 0, kMaxTopLogprobs, top);
  fields.read_integer("n_probs", 0, kMaxTopLogprobs, top);
  if (top > 0 && !wanted && fields.find("top_logprobs") != nullptr) {
    return fields.fail("top_logprobs", top, "logprobs true beside it");
  }
  if (wanted || top > 0) out.top_logprobs = std::max(top, 0);
}

}  // namespace

Json tool_arguments(const Json& arguments) {
  if (!arguments.is_string()) return arguments;
  const std::string& text = arguments.get_ref<const std::string&>();
  ApiResult<Json> object = parse_body(text);
  return object ? *object : arguments;
}

void read_openai_messages(Fields& fields, Generation& out) {
  const Json* messages = nullptr;
  fields.read_array("messages", static_cast<size_t>(kMaxMessages), messages);
  if (messages == nullptr) return check_messages(fields, "messages", out);
  for (size_t i = 0; i < messages->size(); ++i) {
    Json message;
    if (auto error = read_message((*messages)[i], fmt::format("messages[{}]", i), message)) {
      return fields.fail(*error);
    }
    out.messages.push_back(std::move(message));
  }
  check_messages(fields, "messages", out);
}

void check_messages(Fields& fields, const char* name, Generation& out) {
  if (fields.error()) return;
  const size_t count = out.messages.size();
  if (count == 0) return fields.fail(name, nullptr, "an array of at least one message");
  if (count >= 2 && out.messages[count - 1]["role"] == "assistant" &&
      out.messages[count - 2]["role"] == "assistant") {
    fields.fail(name, "two assistant messages at the end", "at most one");
  }
}

void read_strict(Fields& fields, const Json& holder, const std::string& path, size_t index, Generation& out) {
  const Json strict = holder.value("strict", Json(nullptr));
  const std::string field = path + ".strict";
  if (!strict.is_null() && !strict.is_boolean())
    return fields.fail(bad_field(field, strict, "true or false"));
  if (strict == true) out.strict_tools.push_back({index, field});
}

void read_openai_tools(Fields& fields, Generation& out) {
  const Json* tools = nullptr;
  fields.read_array("tools", static_cast<size_t>(kMaxTools), tools);
  for (size_t i = 0; tools != nullptr && i < tools->size(); ++i) {
    const std::string where = fmt::format("tools[{}]", i);
    const Json& tool = (*tools)[i];
    if (!tool.is_object() || !tool.contains("type") || tool["type"] != "function") {
      return fields.fail(bad_field(where, tool, "an object of type function"));
    }
    const auto function = tool.find("function");
    if (function == tool.end() || !function->is_object() || !function->contains("name") ||
        !(*function)["name"].is_string()) {
      return fields.fail(bad_field(where + ".function", nullptr, "an object with a name"));
    }
    if (function->contains("parameters") && !(*function)["parameters"].is_object()) {
      return fields.fail(
          bad_field(where + ".function.parameters", (*function)["parameters"], "a JSON schema"));
    }
    read_strict(fields, *function, where + ".function", i, out);
    out.tools.push_back(tool);
  }
  fields.read("parallel_tool_calls", out.parallel_tool_calls);
  const Json* choice = fields.find("tool_choice");
  if (choice == nullptr) return;
  const char* expected = "none, auto, required, or the name of a tool";
  if (*choice == "none") {
    out.tool_choice = ToolChoice::kNone;
  } else if (*choice == "required") {
    out.tool_choice = ToolChoice::kRequired;
  } else if (choice->is_object()) {
    const Json named = choice->value("function", *choice);
    if (!named.is_object() || !named.contains("name") || !named["name"].is_string()) {
      return fields.fail("tool_choice", *choice, expected);
    }
    out.tool_choice = ToolChoice::kNamed;
    out.tool_name = named["name"].get<std::string>();
    const auto is_named = [&](const Json& tool) { return tool["function"]["name"] == out.tool_name; };
    if (std::none_of(out.tools.begin(), out.tools.end(), is_named)) {
      return fields.fail("tool_choice", out.tool_name, "the name of one of the tools");
    }
  } else if (*choice != "auto") {
    return fields.fail("tool_choice", *choice, expected);
  }
  if (out.tools.empty() && (out.tool_choice == ToolChoice::kRequired)) {
    fields.fail("tool_choice", *choice, "tools to choose from");
  }
}

ApiResult<Generation> parse_chat(std::string_view body, const ApiDefaults& defaults) {
  ApiResult<Json> json = parse_body(body);
  if (!json) return json.error();
  Generation out = begin_generation(Api::kChat, defaults);
  Fields fields(*json);
  fields.read("model", out.model);
  read_openai_messages(fields, out);
  read_openai_tools(fields, out);
  fields.read_integer("max_tokens", -1, kMaxTokensField, out.max_tokens);
  fields.read_integer("n_predict", -1, kMaxTokensField, out.max_tokens);
  fields.read_integer("max_completion_tokens", -1, kMaxTokensField, out.max_tokens);
  read_stops(fields, "stop", out);
  read_chat_logprobs(fields, out);
  read_sampling(fields, defaults, out);
  read_output_format(fields, out);
  read_template_fields(fields, out);
  read_continuation(fields, out);
  refuse_openai_fields(fields);
  fields.only("echo", false, "false");
  if (fields.error()) return *fields.error();
  for (std::string& name : fields.unread()) out.ignored_fields.push_back(std::move(name));
  return out;
}

ApiResult<Generation> parse_apply_template(std::string_view body, const ApiDefaults& defaults) {
  ApiResult<Generation> out = parse_chat(body, defaults);
  return out;
}

}  // namespace mete
