// Which architectures there are.
#include <string>

#include "base/error.h"
#include "models/decoder.h"

namespace mete {
namespace {

struct Architecture {
  const char* name;  ///< general.architecture
  std::unique_ptr<Decoder> (*make)(const GgufFile& file);
};
constexpr Architecture kArchitectures[] = {
    {"llama", make_llama},        //
    {"qwen2", make_qwen2},        //
    {"qwen3", make_qwen3},        //
    {"gemma3", make_gemma3},      //
    {"gemma3n", make_gemma3n},    //
    {"phi3", make_phi3},          //
    {"qwen2moe", make_qwen2moe},  //
    {"qwen3moe", make_qwen3moe},  //
    {"olmoe", make_olmoe},        //
    {"deepseek2", make_deepseek2}, {"gpt-oss", make_gpt_oss},
};

/// The model with its configuration and weight list checked, nothing read yet.
std::unique_ptr<Decoder> make_model(const GgufFile& file) {
  const std::string_view arch = file.metadata().string("general.architecture").value();
  std::string names;
  for (const Architecture& a : kArchitectures) {
    if (arch == a.name) return a.make(file);
    names += std::string(names.empty() ? "" : ", ") + a.name;
  }
  throw bad_model("key \"general.architecture\" is \"{}\", expected one of {}", arch, names);
}

}  // namespace

std::unique_ptr<Model> load_model(Context& ctx, const GgufFile& file, const LoadOptions& options) {
  std::unique_ptr<Decoder> model = make_model(file);
  model->load(ctx, options);
  return model;
}

ModelConfig read_model_config(const GgufFile& file) { return make_model(file)->config(); }

}  // namespace mete
