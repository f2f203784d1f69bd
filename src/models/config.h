// What the decoder architectures read from a file's metadata, checked. Every function throws
// Error(kBadModel) that names the key, what was found and what was expected.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "format/gguf.h"
#include "models/model.h"
#include "ops/rope.h"
#include "ops/route.h"

namespace mete {

/// Keys of one architecture: name "rope.freq_base" means "<arch>.rope.freq_base".
class ArchKeys {
 public:
  /// Refuses keys of other architectures' arithmetic (experts, ALiBi, clamps, ...), but for those named in
  /// `supported`.
  ArchKeys(const GgufMetadata& metadata, std::string arch,
           std::initializer_list<std::string_view> supported = {});

  const std::string& arch() const { return arch_; }
  const GgufMetadata& metadata() const { return metadata_; }
  std::string key(std::string_view name) const { return arch_ + "." + std::string(name); }
  bool has(std::string_view name) const { return metadata_.has(key(name)); }
  int64_t integer(std::string_view name, int64_t min, int64_t max) const;
  int64_t integer_or(std::string_view name, int64_t fallback, int64_t min, int64_t max) const;
  /// As integer(), or an array of one such number per layer, which must all be the same.
  int64_t uniform_integer(std::string_view name, int64_t layers, int64_t min, int64_t max) const;
  /// In [min, max]; fallback is not checked.
  double number(std::string_view name, double min, double max) const;
  double number_or(std::string_view name, double fallback, double min, double max) const;
  std::string string_or(std::string_view name, std::string_view fallback) const;

 private:
  const GgufMetadata& metadata_;
  std::string arch_;
};

/// Layer count, widths, heads, vocabulary and context.
ModelConfig read_shape(const ArchKeys& keys);

/// What a file with routed experts says of them: counts and FFN width into `experts` (of d_model columns),
/// and the router's rules, `normalise` being the architecture's unless the file says otherwise.
RouterParams read_router(const ArchKeys& keys, const ModelConfig& config, bool normalise,
                         ExpertDeclaration* experts);

/// attention.layer_norm_rms_epsilon.
float read_rms_epsilon(const ArchKeys& keys);

/// Sliding window of each layer, 0 = none. Of every `pattern` layers the last one attends to everything
/// (0: every layer slides), unless the file's sliding_window_pattern says otherwise.
std::vector<int32_t> read_windows(const ArchKeys& keys, int64_t layers, int64_t pattern);

/// For architectures whose files never state which layers slide: a window is an error.
void refuse_sliding_window(const ArchKeys& keys);

/// A RoPE base, 10000 if the file does not say.
double read_rope_base(const ArchKeys& keys, std::string_view name);

enum class RopeKind { kNormal, kNeox };
/// rope.*; scaling none, linear or yarn. Any other scaling type: an error, unless `longrope` allows that one,
/// whose factors and magnitude the caller sets.
RopeConfig read_rope(const ArchKeys& keys, const ModelConfig& config, RopeKind kind, bool longrope = false);

}  // namespace mete
