#include "apps/grammar_options.h"

#include "apps/args.h"

namespace mete {

void GrammarOptions::add_to(CLI::App& app) {
  auto* a = app.add_option("--grammar", gbnf, "GBNF grammar that the answer follows, rule \"root\" first");
  auto* b = app.add_option("--grammar-file", gbnf_file, "the same, from a file");
  auto* c =
      app.add_option("-j,--json-schema", schema, "JSON schema that the answer fits, e.g. {} for any JSON");
  auto* d = app.add_option("--json-schema-file", schema_file, "(-jf) the same, from a file");
  for (auto* one : {a, b, c, d}) {
    for (auto* other : {a, b, c, d}) {
      if (one != other) one->excludes(other);
    }
  }
}

std::shared_ptr<const Grammar> GrammarOptions::compile(GrammarCompiler& compiler) const {
  if (gbnf) return compiler.gbnf(*gbnf).value();
  if (!gbnf_file.empty()) return compiler.gbnf(read_text_file(gbnf_file)).value();
  if (schema) return compiler.json_schema(*schema).value();
  if (!schema_file.empty()) return compiler.json_schema(read_text_file(schema_file)).value();
  return nullptr;
}

}  // namespace mete
