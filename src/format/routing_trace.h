// Routing traces (mete inspect --routing): which experts a router chose, token by token, and what the expert
// store was told and did. Bytes, little-endian:
//   "METETRAC", u32 version, u32 layers, u32 experts, u32 used, u64 expert_bytes
//   records, each a u32 kind and
//     1 sequence  a new text starts
//     2 visit     u32 layer, u32 rows, [rows][used] u16 ids best first, [rows][used] f32 weights; the rows
//     are
//                 the next tokens of the sequences that share the step
//     3 hint      u32 layer, u32 n, n x (u16 expert, u16 0, u32 rows): a guess at the layer's demand
//     4 served    u32 layer, u32 n, n x (u16 expert, u16 hit, i32 after): the order in which the layer's
//     experts
//                 were served; `after`: the one (index into this list) whose slot it takes, or -1
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"

namespace mete {

struct RoutingTrace {
  static constexpr uint32_t kVersion = 1;
  struct Hint {
    int32_t expert, rows;
  };
  struct Served {
    int32_t expert;
    bool hit;
    int32_t after;
  };
  enum class Kind : uint32_t { kSequence = 1, kVisit = 2, kHint = 3, kServed = 4 };
  struct Record {
    Kind kind;
    int32_t layer = 0;
    int32_t count = 0;  ///< rows of a visit, entries of a hint or of a serving order
    size_t first = 0;   ///< into ids and weights, hints, or served
  };
  int32_t layers = 0, experts = 0, used = 0;
  int64_t expert_bytes = 0;  ///< of one expert as it lies in memory
  std::vector<Record> records;
  std::vector<uint16_t> ids;  ///< [row][used]
  std::vector<float> weights;
  std::vector<Hint> hints;
  std::vector<Served> served;

  /// Untrusted bytes. Error(kBadModel) naming the record; a record cut off at the end is an error too.
  static Result<RoutingTrace> parse(std::span<const uint8_t> bytes);
};

class RoutingTraceWriter {
 public:
  /// Throws Error(kRuntime) if the file cannot be written.
  RoutingTraceWriter(const std::string& path, int32_t layers, int32_t experts, int32_t used,
                     int64_t expert_bytes);
  void sequence();
  void visit(int layer, int64_t rows, int64_t used, const int32_t* ids, const float* weights);
  void hint(int layer, std::span<const RoutingTrace::Hint> hints);
  void served(int layer, std::span<const RoutingTrace::Served> order);
  /// Throws Error(kRuntime) if anything could not be written.
  void close();

 private:
  template <typename T>
  void put(T value);
  struct Closer {
    void operator()(FILE* file) const { std::fclose(file); }
  };
  std::string path_;
  std::unique_ptr<FILE, Closer> file_;
  bool failed_ = false;
};

}  // namespace mete
