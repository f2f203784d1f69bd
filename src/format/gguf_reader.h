// The structural reader of one GGUF file (one part of a split model): turns untrusted bytes into bounded,
// typed values. It knows no architecture; GgufFile joins the parts.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "format/byte_source.h"
#include "format/gguf.h"

namespace mete {

struct GgufPart {
  int version = 0;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;  ///< in file order, `part` not yet set
};

/// Limits far above any real model, far below what hurts.
inline constexpr uint64_t kMaxGgufHeaderBytes = uint64_t{1} << 28;  ///< metadata and tensor infos together
inline constexpr uint64_t kMaxGgufKeyBytes = 65535;                 ///< the specification's limit
inline constexpr uint64_t kMaxGgufNameBytes = 255;                  ///< ggml itself takes 63
inline constexpr uint32_t kMaxGgufAlignment = 65536;

class GgufReader {
 public:
  explicit GgufReader(const ByteSource& source);
  /// Malformed content: Code::kBadModel. I/O failure, or a file truncated meanwhile: Code::kRuntime.
  Result<GgufPart> read();

 private:
  class Arena;

  // Every step returns false after setting error_.
  bool read_header();
  bool read_pair();
  bool read_array(GgufValue* value);
  bool read_scalar(GgufValue* value);
  bool read_numbers(GgufValue* value);
  bool read_tensor_info();
  bool check_tensor(const GgufTensor& tensor, int32_t type_id);
  bool read_alignment();
  bool place_tensors();

  bool need(uint64_t bytes, const char* field);
  bool take(void* out, size_t bytes, const char* field);
  template <typename T>
  bool take(T* out, const char* field) {
    return take(out, sizeof *out, field);
  }
  bool take_bytes(uint64_t bytes, const uint8_t** out, const char* field);
  bool take_string(uint64_t limit, const char* field, std::string_view* out);
  bool take_name(uint64_t limit, const char* field, std::string_view* out);
  bool fail(Error error);
  uint64_t remaining() const { return source_.size() - position_; }

  const ByteSource& source_;
  uint64_t position_ = 0;
  std::vector<uint8_t> window_;  ///< file bytes [window_begin_, window_begin_ + window_.size())
  uint64_t window_begin_ = 0;
  std::shared_ptr<Arena> arena_;  ///< owns what the metadata's views point to
  std::unordered_set<std::string_view> tensor_names_;
  std::string subject_;  ///< what is being read: `key "..."`, for messages
  std::optional<Error> error_;
  GgufPart part_;
  uint64_t n_tensors_ = 0;
  uint64_t n_pairs_ = 0;
  uint64_t alignment_ = 32;
};

}  // namespace mete
