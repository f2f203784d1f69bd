#include "format/hub_cache.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace mete {
namespace {

namespace fs = std::filesystem;

/// A cache of the hub's layout: snapshot entries are links to blobs.
class HubCache : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = ::testing::TempDir() + "mete_hub_" + std::to_string(::getpid());
    for (const char* name : {"HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"}) ::unsetenv(name);
    ::setenv("HF_HUB_CACHE", root_.c_str(), 1);
    add("org/multi", "abc123", "tiny-Q4_K_M.gguf");
    add("org/multi", "abc123", "tiny-Q8_0.gguf");
    add("org/multi", "abc123", "sub/big-00001-of-00002.gguf");
    add("org/multi", "abc123", "sub/big-00002-of-00002.gguf");
    add("org/multi", "abc123", "README.md");
    add("org/multi", "0ld", "old.gguf");
    set_main("org/multi", "abc123\n");
    add("org/one.5-x", "f00", "only.gguf");
  }
  void TearDown() override {
    fs::remove_all(root_);
    ::unsetenv("HF_HUB_CACHE");
  }

  fs::path repository(std::string name) const {
    return fs::path(root_) / ("models--" + name.replace(name.find('/'), 1, "--"));
  }
  void add(const std::string& name, const std::string& revision, const std::string& file) const {
    const fs::path blob = repository(name) / "blobs" / fs::path(file).filename();
    const fs::path link = repository(name) / "snapshots" / revision / file;
    fs::create_directories(blob.parent_path());
    fs::create_directories(link.parent_path());
    std::ofstream(blob) << "x";
    fs::create_symlink(blob, link);
  }
  void set_main(const std::string& name, const std::string& text) const {
    fs::create_directories(repository(name) / "refs");
    std::ofstream(repository(name) / "refs" / "main") << text;
  }
  std::string snapshot(const std::string& name, const std::string& revision) const {
    return (repository(name) / "snapshots" / revision).string();
  }
  static std::string error(const std::string& argument, Code code) {
    const auto result = resolve_model_path(argument);
    if (result) return "no error: " + *result;
    EXPECT_EQ(result.error().code(), code);
    return result.error().message();
  }

  std::string root_;
};

TEST_F(HubCache, FindsByFileQuantOrAlone) {
  const std::string at = snapshot("org/multi", "abc123");
  EXPECT_EQ(resolve_model_path("org/multi:tiny-Q8_0.gguf").value(), at + "/tiny-Q8_0.gguf");
  EXPECT_EQ(resolve_model_path("org/multi:q4_k_m").value(), at + "/tiny-Q4_K_M.gguf");
  EXPECT_EQ(resolve_model_path("org/multi:big").value(), at + "/sub/big-00001-of-00002.gguf");
  EXPECT_EQ(resolve_model_path("org/multi:sub/big-00001-of-00002.gguf").value(),
            at + "/sub/big-00001-of-00002.gguf");
  EXPECT_EQ(resolve_model_path("org/one.5-x").value(), snapshot("org/one.5-x", "f00") + "/only.gguf");
}

TEST_F(HubCache, EnvironmentDecidesWhere) {
  const std::string at = snapshot("org/one.5-x", "f00") + "/only.gguf";
  fs::create_directories(root_ + "/home/.cache/huggingface");
  fs::create_directory_symlink(root_, root_ + "/home/hub");
  fs::create_directory_symlink(root_, root_ + "/home/.cache/huggingface/hub");
  ::unsetenv("HF_HUB_CACHE");
  ::setenv("HF_HOME", (root_ + "/home").c_str(), 1);
  EXPECT_TRUE(fs::equivalent(resolve_model_path("org/one.5-x").value(), at));
  ::unsetenv("HF_HOME");
  const std::string home = std::getenv("HOME") != nullptr ? std::getenv("HOME") : "";
  ::setenv("HOME", (root_ + "/home").c_str(), 1);
  EXPECT_TRUE(fs::equivalent(resolve_model_path("org/one.5-x").value(), at));
  ::setenv("HOME", home.c_str(), 1);
}

TEST_F(HubCache, AnExistingPathIsItself) {
  const std::string path = root_ + "/plain.gguf";
  std::ofstream(path) << "x";
  EXPECT_EQ(resolve_model_path(path).value(), path);
}

TEST_F(HubCache, ErrorsNameWhereItLooked) {
  const std::string at = snapshot("org/multi", "abc123");
  EXPECT_EQ(error("missing.gguf", Code::kRuntime), "missing.gguf: no such file");
  EXPECT_EQ(error("a/b/c.gguf", Code::kRuntime), "a/b/c.gguf: no such file");
  EXPECT_EQ(error("../up", Code::kRuntime), "../up: no such file");
  EXPECT_EQ(error("org/..", Code::kRuntime), "org/..: no such file");
  EXPECT_EQ(error("", Code::kRuntime), ": no such file");
  EXPECT_EQ(error("org/none", Code::kRuntime),
            "org/none: no such file, and not in the hub cache: no directory " +
                (fs::path(root_) / "models--org--none").string());
  EXPECT_EQ(error("org/multi:Q2_K", Code::kRuntime),
            "org/multi:Q2_K: no GGUF file named Q2_K in " + at +
                ", which has: sub/big-00001-of-00002.gguf, tiny-Q4_K_M.gguf, tiny-Q8_0.gguf");
  EXPECT_EQ(error("org/multi:tiny", Code::kUsage),
            "org/multi:tiny: 2 GGUF files fit in " + at +
                ", expected one; name one as org/multi:FILE: tiny-Q4_K_M.gguf, "
                "tiny-Q8_0.gguf");
  set_main("org/multi", "../../../etc");
  EXPECT_EQ(error("org/multi", Code::kRuntime), "org/multi: the hub cache has no snapshot for it: " +
                                                    (repository("org/multi") / "refs" / "main").string() +
                                                    " names none");
}

}  // namespace
}  // namespace mete
