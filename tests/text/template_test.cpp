// The interpreter against golden renderings of transformers' Jinja environment
// (tests/golden/templates/make.py).
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "text/chat_template.h"

namespace mete {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

std::string read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

fs::path golden_dir() { return fs::path(METE_GOLDEN_DIR) / "templates"; }

std::tm golden_time() {  // Friday 2026-01-02 03:04:05
  std::tm time{};
  time.tm_year = 126;
  time.tm_mday = 2;
  time.tm_hour = 3;
  time.tm_min = 4;
  time.tm_sec = 5;
  time.tm_wday = 5;
  time.tm_yday = 1;
  return time;
}

/// The rendering, or "error: ..." from parsing or rendering.
Json render_golden(const std::string& source, const Json& variables) {
  auto parsed = ChatTemplate::parse(source);
  if (!parsed) return {{"error", parsed.error().message()}};
  auto spans = parsed->render_spans(variables, {}, golden_time());
  if (!spans) return {{"error", spans.error().message()}};
  std::string text;
  for (const PromptSpan& span : *spans) text += span.text;
  return {{"text", text}};
}

/// Same text, or an error on both sides; a template's own message must be in ours.
std::string difference(const Json& expected, const Json& found) {
  if (expected.contains("fnv1a")) {
    const std::string text = found.value("text", found.value("error", ""));
    uint64_t hash = 0xcbf29ce484222325;
    for (const char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3;
    const bool same = text.size() == expected["bytes"] && fmt::format("{:016x}", hash) == expected["fnv1a"];
    return same ? "" : "differs (make.py with two arguments keeps the whole text); found " + text;
  }
  if (expected.contains("text")) {
    if (found.contains("error")) return "unexpected error: " + found["error"].get<std::string>();
    if (expected["text"] == found["text"]) return "";
    return "expected " + expected["text"].dump() + "\nfound    " + found["text"].dump();
  }
  const std::string error = expected["error"];
  if (found.contains("text")) return "expected " + error + "\nfound " + found["text"].dump();
  const std::string prefix = "TemplateError: ";
  if (error.rfind(prefix, 0) != 0) return "";
  const bool same = found["error"].get<std::string>().find(error.substr(prefix.size())) != std::string::npos;
  return same ? "" : "expected message " + error + "\nfound " + found["error"].get<std::string>();
}

struct Tally {
  int templates = 0;
  int renderings = 0;
  int wrong = 0;
};

Tally check_templates(const fs::path& dir) {
  Tally tally;
  const Json cases = Json::parse(read_file(golden_dir() / "cases.json"));
  std::vector<fs::path> sources;
  for (const auto& entry : fs::directory_iterator(dir)) {
    if (entry.path().extension() == ".jinja") sources.push_back(entry.path());
  }
  std::sort(sources.begin(), sources.end());
  for (const fs::path& path : sources) {
    ++tally.templates;
    const std::string source = read_file(path);
    const Json golden = Json::parse(read_file(fs::path(path).replace_extension(".json")));
    for (const Json& example : cases) {
      Json variables = {{"bos_token", "<BOS>"}, {"eos_token", "<EOS>"}};
      variables.update(example["variables"]);
      const std::string name = example["name"];
      const std::string wrong = difference(golden.at(name), render_golden(source, variables));
      ++tally.renderings;
      if (wrong.empty()) continue;
      ++tally.wrong;
      ADD_FAILURE() << path.filename().string() << ", case " << name << ": " << wrong;
    }
  }
  std::printf("%d templates, %d of %d renderings match\n", tally.templates, tally.renderings - tally.wrong,
              tally.renderings);
  return tally;
}

TEST(Template, SnippetsMatchTransformers) {
  const Json golden = Json::parse(read_file(golden_dir() / "snippets.json"));
  const std::string all = read_file(golden_dir() / "snippets.txt");
  const std::string separator = "\n====\n";
  size_t at = 0;
  for (const Json& result : golden["results"]) {
    const size_t end = all.find(separator, at);
    ASSERT_NE(end, std::string::npos);
    const std::string source = all.substr(at, end - at);
    EXPECT_EQ(difference(result, render_golden(source, golden["variables"])), "") << source;
    at = end + separator.size();
  }
  EXPECT_EQ(at, all.size());
  EXPECT_GE(golden["results"].size(), 150U);
}

TEST(Template, ModelTemplatesMatchTransformers) {
  const Tally tally = check_templates(golden_dir());
  EXPECT_GE(tally.templates, 15);
}

TEST(Template, FetchedTemplatesMatchTransformers) {
  const char* dir = std::getenv("METE_TEMPLATE_GOLDENS");
  if (!dir) GTEST_SKIP() << "METE_TEMPLATE_GOLDENS is not set; see tests/golden/templates/make.py";
  EXPECT_GT(check_templates(dir).templates, 0);
}

}  // namespace
}  // namespace mete
