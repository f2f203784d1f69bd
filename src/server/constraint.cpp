#include "server/constraint.h"

#include <algorithm>

#include "text/grammar/free_text.h"
#include "text/grammar/json_schema.h"

namespace mete {
namespace {

/// A tool's parameters stand deep inside the schema of all calls: references to its own parts move with it.
void move_references(Json& schema, const std::string& root) {
  if (schema.is_array()) {
    for (Json& item : schema) move_references(item, root);
  }
  if (!schema.is_object()) return;
  for (auto& [key, value] : schema.items()) {
    if (key == "$ref" && value.is_string() && value.get<std::string>().substr(0, 1) == "#") {
      value = root + value.get<std::string>().substr(1);
    } else {
      move_references(value, root);
    }
  }
}

/// Schema of one call of any tool that may be called. Where the model is free to call, arguments are bound
/// for strict tools only.
Json call_schema(const Generation& request) {
  Json calls = Json::array();
  for (size_t i = 0; i < request.tools.size(); ++i) {
    const Json& function = request.tools[i]["function"];
    if (request.tool_choice == ToolChoice::kNamed && function["name"] != request.tool_name) continue;
    const auto& strict = request.strict_tools;
    const bool bound =
        request.tool_choice != ToolChoice::kAuto ||
        std::any_of(strict.begin(), strict.end(), [&](const StrictTool& tool) { return tool.index == i; });
    const bool described = bound && function.contains("parameters") && !function["parameters"].is_null();
    Json parameters = described ? function["parameters"] : Json{{"type", "object"}};
    move_references(parameters, fmt::format("#/anyOf/{}/properties/arguments", calls.size()));
    Json properties = {{"name", {{"const", function["name"]}}}, {"arguments", std::move(parameters)}};
    calls.push_back({{"type", "object"},
                     {"properties", std::move(properties)},
                     {"required", Json::array({"name", "arguments"})}});
  }
  return {{"anyOf", std::move(calls)}};
}

ApiError constraint_error(const std::string& field, const Error& error) {
  ApiError out =
      api_error(400, "invalid_request_error", "invalid_value", fmt::format("{}: {}", field, error.message()));
  out.field = field;
  return out;
}

/// Free text whose calls fit the schemas.
ApiResult<std::shared_ptr<const Grammar>> compile_strict(const Generation& request,
                                                         const OutputOptions& output,
                                                         std::span<const int32_t> shown_tokens,
                                                         GrammarCompiler& compiler) {
  const std::string& field = request.strict_tools[0].field;
  if (request.format.kind != OutputKind::kText) {
    return unsupported_field(field, true, "false beside " + request.format.field);
  }
  if (output.format != ChatFormat::kTags) {
    return unsupported_field(field, true,
                             "false, or tool_choice required: this model has no <tool_call> marks by which "
                             "a call is told from text while it is written");
  }
  const Result<std::string> call = json_schema_to_gbnf(call_schema(request).dump());
  if (!call) return constraint_error("tools", call.error());
  const FreeTextStart start = output.starts_in_reasoning ? FreeTextStart::kReasoning
                              : output.split_reasoning   ? FreeTextStart::kAnything
                                                         : FreeTextStart::kText;
  const ToolMarks marks = tool_marks(output.format)[0];
  const std::string text = free_text_gbnf(*call, {marks.open, marks.close, "<think>", "</think>"}, start);
  const Result<std::shared_ptr<const Grammar>> grammar = compiler.open_gbnf(text, shown_tokens);
  if (!grammar) return constraint_error("tools", grammar.error());
  return *grammar;
}

}  // namespace

ApiResult<std::shared_ptr<const Grammar>> compile_constraint(const Generation& request,
                                                             const OutputOptions& output,
                                                             std::span<const int32_t> shown_tokens,
                                                             GrammarCompiler& compiler) {
  const OutputFormat& wanted = request.format;
  if (request.tool_choice == ToolChoice::kRequired || request.tool_choice == ToolChoice::kNamed) {
    if (wanted.kind != OutputKind::kText) {
      return bad_field("tool_choice", "required", "no forced call beside " + wanted.field);
    }
    const bool tags = output.format == ChatFormat::kTags;
    const Result<std::string> gbnf = json_schema_to_gbnf(
        call_schema(request).dump(), tags ? "<tool_call>\n" : "", tags ? "\n</tool_call>" : "");
    if (!gbnf) return constraint_error("tools", gbnf.error());
    const Result<std::shared_ptr<const Grammar>> grammar = compiler.gbnf(*gbnf);
    if (!grammar) return constraint_error("tools", grammar.error());
    return *grammar;
  }
  if (request.tool_choice == ToolChoice::kAuto && !request.strict_tools.empty()) {
    return compile_strict(request, output, shown_tokens, compiler);
  }
  if (wanted.kind == OutputKind::kText) return std::shared_ptr<const Grammar>();
  const Result<std::shared_ptr<const Grammar>> grammar =
      wanted.kind == OutputKind::kGrammar      ? compiler.gbnf(wanted.source)
      : wanted.kind == OutputKind::kJsonSchema ? compiler.json_schema(wanted.source)
                                               : compiler.json_object();
  if (!grammar) return constraint_error(wanted.field, grammar.error());
  return *grammar;
}

}  // namespace mete
