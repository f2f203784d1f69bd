#include "server/constraint.h"

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

/// Schema of one call of any tool that may be called.
Json call_schema(const Generation& request) {
  Json calls = Json::array();
  for (const Json& tool : request.tools) {
    const Json& function = tool["function"];
    if (request.tool_choice == ToolChoice::kNamed && function["name"] != request.tool_name) continue;
    const bool described = function.contains("parameters") && !function["parameters"].is_null();
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

}  // namespace

ApiResult<std::shared_ptr<const Grammar>> compile_constraint(const Generation& request, ChatFormat format,
                                                             GrammarCompiler& compiler) {
  const OutputFormat& wanted = request.format;
  if (request.tool_choice == ToolChoice::kRequired || request.tool_choice == ToolChoice::kNamed) {
    if (wanted.kind != OutputKind::kText) {
      return bad_field("tool_choice", "required", "no forced call beside " + wanted.field);
    }
    const bool tags = format == ChatFormat::kTags;
    const Result<std::string> gbnf = json_schema_to_gbnf(
        call_schema(request).dump(), tags ? "<tool_call>\n" : "", tags ? "\n</tool_call>" : "");
    if (!gbnf) return constraint_error("tools", gbnf.error());
    const Result<std::shared_ptr<const Grammar>> grammar = compiler.gbnf(*gbnf);
    if (!grammar) return constraint_error("tools", grammar.error());
    return *grammar;
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
