#include <algorithm>
#include <cstdio>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "apps/args.h"
#include "apps/commands.h"
#include "base/clock.h"
#include "format/hub_cache.h"
#include "text/tokenizer.h"

namespace mete {
namespace {

std::string read_stdin() {
  std::string text;
  char buffer[65536];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, stdin)) > 0;) text.append(buffer, n);
  return text;
}

/// Encodes the text again and again on this thread for about a second; prints the median rate.
void bench(const Tokenizer& tokenizer, const std::string& text, bool special) {
  std::vector<double> rates;
  std::vector<int32_t> ids;
  const double start = now_seconds();
  while (rates.size() < 3 || now_seconds() - start < 1.0) {
    ids.clear();
    const double begin = now_seconds();
    tokenizer.encode(text, special, ids);
    rates.push_back(static_cast<double>(text.size()) / 1e6 / (now_seconds() - begin));
  }
  std::sort(rates.begin(), rates.end());
  fmt::print("{}: {} bytes, {} tokens, {:.2f} MB/s (median of {} runs, one thread)\n", tokenizer.kind(),
             text.size(), ids.size(), rates[rates.size() / 2], rates.size());
}

}  // namespace

int cmd_tokenize(const std::vector<std::string>& args) {
  CLI::App app("Token ids of a text, one line each with its bytes.", "mete tokenize");
  std::string model, file;
  std::optional<std::string> prompt;
  bool ids_only = false, json = false, no_bos = false, special = false, run_bench = false, show_count = false;
  app.add_option("-m,--model", model, "GGUF file, or org/name in the local hub cache")->required();
  app.add_option("-p,--prompt", prompt, "the text");
  app.add_option("-f,--file", file, "read the text from a file; - or neither -p nor -f: standard input");
  app.add_flag("--ids", ids_only, "print only the ids, as [1, 2, 3]");
  app.add_flag("--json", json, "print one JSON object: tokens, pieces, count");
  app.add_flag("--show-count", show_count, "print the number of tokens at the end");
  app.add_flag("--no-bos", no_bos, "do not add the beginning-of-sequence token");
  app.add_flag("--parse-special", special, "spellings of special tokens in the text become these tokens");
  app.add_flag("--bench", run_bench, "time the tokenizer on the text instead");
  if (const int code = parse(app, args); code >= 0) return code;
  if (prompt && !file.empty()) throw bad_usage("-p and -f exclude each other");
  if (int{ids_only} + int{json} + int{run_bench} > 1)
    throw bad_usage("--ids, --json and --bench exclude each other");
  if (show_count && (json || run_bench)) throw bad_usage("--show-count goes with the list or --ids");
  if (no_bos && run_bench) throw bad_usage("--no-bos has no effect with --bench");

  const GgufFile gguf = GgufFile::open(resolve_model_path(model).value()).value();
  const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::create(gguf.metadata()).value();
  const std::string text = prompt                        ? *prompt
                           : file.empty() || file == "-" ? read_stdin()
                                                         : read_text_file(file);
  if (run_bench) {
    if (text.empty()) throw bad_usage("--bench: the text is empty");
    bench(*tokenizer, text, special);
    return 0;
  }
  std::vector<int32_t> ids;
  if (!no_bos && tokenizer->add_bos()) ids.push_back(tokenizer->bos());
  tokenizer->encode(text, special, ids);
  if (json) {
    nlohmann::ordered_json pieces = nlohmann::ordered_json::array();
    for (const int32_t id : ids) pieces.push_back(std::string(tokenizer->piece(id)));
    const nlohmann::ordered_json out = {{"tokens", ids}, {"pieces", pieces}, {"count", ids.size()}};
    std::printf("%s\n", out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
  } else if (ids_only) {
    fmt::print("[{}]\n", fmt::join(ids, ", "));
  } else {
    for (const int32_t id : ids) {
      const std::string piece(tokenizer->piece(id));
      const nlohmann::ordered_json quoted = piece;
      fmt::print("{:6d} -> {}\n", id,
                 quoted.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    }
  }
  if (show_count) fmt::print("Total number of tokens: {}\n", ids.size());
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace mete
