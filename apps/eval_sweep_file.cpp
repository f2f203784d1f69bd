#include "apps/eval_sweep_file.h"

#include <algorithm>
#include <set>
#include <sstream>

#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#include <toml++/toml.h>

namespace mete {
namespace {

/// Options that every setting must share, or the rows of the list could not be compared; and those that only
/// a single run has.
const std::set<std::string>& common_only() {
  static const std::set<std::string> names = {
      "file",    "ctx-size", "chunks", "reference",           "reference-numerics", "compact",
      "buckets", "samples",  "seed",   "task-tokens",         "task-ctx",           "depths",
      "data",    "haystack", "tasks",  "allow-code-execution"};
  return names;
}

using Words = std::vector<std::string>;  // "--option", then its value

std::string value_text(const toml::node& node, const std::string& where) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* number = node.as_integer()) return std::to_string(number->get());
  if (const auto* number = node.as_floating_point()) return fmt::format("{}", number->get());
  throw bad_usage("{}: expected a text, a number, true, or a list of those", where);
}

/// Appends the option as command-line words; a later one of the same name replaces an earlier one.
void add_option(std::vector<Words>& options, const std::string& key, const toml::node& node,
                const std::string& where) {
  static const std::set<std::string> kNotHere = {"sweep", "svg", "json", "save-logits", "help"};
  if (kNotHere.count(key) != 0) throw bad_usage("{}: not an option of a sweep file", where);
  Words words = {"--" + key};
  if (const auto* flag = node.as_boolean()) {
    if (!flag->get()) throw bad_usage("{}: found false; leave the option out", where);
  } else if (const auto* list = node.as_array()) {
    std::string joined;
    for (const toml::node& item : *list) joined += (joined.empty() ? "" : ",") + value_text(item, where);
    words.push_back(joined);
  } else {
    words.push_back(value_text(node, where));
  }
  std::erase_if(options, [&](const Words& w) { return w[0] == words[0]; });
  options.push_back(words);
}

EvalOptions parse_options(const std::vector<Words>& file, const Words& over, const std::string& where) {
  Words args;
  for (const Words& words : file) {
    if (std::find(over.begin(), over.end(), words[0]) == over.end()) {
      args.insert(args.end(), words.begin(), words.end());
    }
  }
  args.insert(args.end(), over.begin(), over.end());
  EvalOptions options;
  CLI::App app("", "mete eval");
  options.add_to(app);
  std::reverse(args.begin(), args.end());
  try {
    app.parse(std::move(args));
  } catch (const CLI::ParseError& error) {
    throw bad_usage("{}: {}", where, error.what());
  }
  const int64_t compact = std::exchange(options.compact, 0);  // valid here, without --save-logits
  try {
    options.check(app);
    options.runtime_config(options.window);
  } catch (const Error& error) {
    throw bad_usage("{}: {}", where, error.message());
  }
  options.compact = compact;
  return options;
}

SweepSetting parse_setting(const toml::table& table, const std::vector<Words>& common, const Words& over,
                           const std::string& where) {
  SweepSetting setting;
  std::vector<Words> options = common;
  for (const auto& [toml_key, node] : table) {
    const std::string key(toml_key.str());
    if (key == "name") {
      setting.name = value_text(node, where + ": name");
    } else if (common_only().count(key) != 0) {
      throw bad_usage("{}: {} differs between settings; it belongs at the top of the file", where, key);
    } else {
      add_option(options, key, node, fmt::format("{}: {}", where, key));
    }
  }
  if (setting.name.empty()) throw bad_usage("{}: the key 'name' is missing", where);
  setting.options = parse_options(options, over, where);
  return setting;
}

}  // namespace

Sweep parse_sweep(const std::string& text, const std::string& path, const std::vector<std::string>& over) {
  const toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    const toml::source_position at = parsed.error().source().begin;
    throw bad_usage("{}: line {}: {}", path, at.line, std::string(parsed.error().description()));
  }
  const toml::table& file = parsed.table();
  std::vector<Words> common;
  for (const auto& [toml_key, node] : file) {
    const std::string key(toml_key.str());
    if (key != "setting") add_option(common, key, node, fmt::format("{}: {}", path, key));
  }
  const toml::array* settings = file["setting"].as_array();
  if (settings == nullptr || settings->empty()) throw bad_usage("{}: no [[setting]] in it", path);
  Sweep sweep;
  std::set<std::string> names;
  for (size_t i = 0; i < settings->size(); ++i) {
    const std::string where = fmt::format("{}: setting {}", path, i + 1);
    const toml::table* table = settings->get(i)->as_table();
    if (table == nullptr) throw bad_usage("{}: expected a table, [[setting]]", where);
    sweep.settings.push_back(parse_setting(*table, common, over, where));
    if (!names.insert(sweep.settings.back().name).second) {
      throw bad_usage("{}: a second setting with the name '{}'", where, sweep.settings.back().name);
    }
  }
  // The model may be each setting's own; what is read from `common` then does not depend on it.
  Words with_model = over;
  const bool has_model =
      std::any_of(common.begin(), common.end(), [](const Words& w) { return w[0] == "--model"; }) ||
      std::find(over.begin(), over.end(), "--model") != over.end();
  if (!has_model) with_model.insert(with_model.end(), {"--model", sweep.settings[0].options.model.model});
  sweep.common = parse_options(common, with_model, path);
  if (!has_model) {
    if (sweep.common.reference == "self") {
      throw bad_usage(
          "{}: reference = \"self\" needs a model at the top: the settings may have different ones", path);
    }
    sweep.common.model.model.clear();
  }
  return sweep;
}

}  // namespace mete
