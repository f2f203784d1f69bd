#include "server/constraint.h"

namespace mete {

ApiResult<std::shared_ptr<const Grammar>> compile_constraint(const OutputFormat& format,
                                                             GrammarCompiler& compiler) {
  if (format.kind == OutputKind::kText) return std::shared_ptr<const Grammar>();
  Result<std::shared_ptr<const Grammar>> grammar =
      format.kind == OutputKind::kGrammar      ? compiler.gbnf(format.source)
      : format.kind == OutputKind::kJsonSchema ? compiler.json_schema(format.source)
                                               : compiler.json_object();
  if (grammar) return *grammar;
  ApiError error = api_error(400, "invalid_request_error", "invalid_value",
                             fmt::format("{}: {}", format.field, grammar.error().message()));
  error.field = format.field;
  return error;
}

}  // namespace mete
