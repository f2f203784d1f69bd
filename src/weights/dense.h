// Dense weights: tensors that every token reads in full. A model declares what it needs; each declaration is
// checked against the file at once; load() then streams the file into packed memory that the process owns.
// Routed experts do not belong here: a store of their own takes them (claim()).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/aligned.h"
#include "format/gguf.h"
#include "ops/context.h"
#include "ops/matmul.h"

namespace mete {

/// `rows` consecutive rows of a stored matrix, for one Linear (fused q/k/v and gate/up are stored as one).
struct MatrixPart {
  int64_t rows;
  Linear* linear;
};

/// `n` consecutive elements of a stored vector.
struct VectorPart {
  int64_t n;
  const float** data;
};

struct ReadOptions {
  int64_t read_bytes = int64_t{1} << 20;  ///< of one read, about: a worker owns one buffer of this size
  /// Called on the calling thread with file bytes done and in all; may be null.
  void (*progress)(void* user, int64_t done, int64_t total) = nullptr;
  void* progress_user = nullptr;
  int64_t done_before = 0, left_after = 0;  ///< bytes of other readers that `progress` counts too
};

class DenseWeights {
 public:
  /// `file` must outlive load().
  explicit DenseWeights(const GgufFile& file);

  // Declarations. Each throws Error(kBadModel) naming the tensor if it is missing, declared twice, or has
  // another shape or type than expected. What they point to is filled by load() and must outlive it.

  /// A [rows][cols] matrix of any supported type.
  void matrix(std::string_view name, int64_t rows, int64_t cols, Linear* linear);
  /// As matrix(), its rows dealt out to `parts` in order; the sum of their rows must be the matrix's.
  void matrix_parts(std::string_view name, int64_t cols, std::span<const MatrixPart> parts);
  /// `rows` rows from `first_row` of a tensor of this file, seen as [rows()][cols()]; claims nothing. For the
  /// experts of a stacked tensor, whose shape the caller has checked.
  void stacked_part(const GgufTensor& tensor, int64_t first_row, int64_t rows, Linear* linear);
  /// As stacked_part(), transposed: `linear` becomes [cols()][rows]. Of the tensor's type if that is F32, F16
  /// or BF16; else of the dequantised values in F32, since a transposed block has no scale of its own.
  void transposed_part(const GgufTensor& tensor, int64_t first_row, int64_t rows, Linear* linear);
  /// [rows][cols] floats, stored as F32, F16 or BF16; false if the file lacks them.
  bool optional_table(std::string_view name, int64_t rows, int64_t cols, const float** data);
  /// A vector of n floats, stored as F32, F16 or BF16.
  void vector(std::string_view name, int64_t n, const float** data);
  /// As above, but a tensor that is not in the file leaves the target alone and returns false.
  bool optional_matrix(std::string_view name, int64_t rows, int64_t cols, Linear* linear);
  bool optional_vector(std::string_view name, int64_t n, const float** data);
  bool optional_vector_parts(std::string_view name, std::span<const VectorPart> parts);
  bool has(std::string_view name) const { return file_.find(name) != nullptr; }
  /// A tensor that is dealt with elsewhere, claimed. Throws Error(kBadModel) if it is missing or declared
  /// twice.
  const GgufTensor& stacked(std::string_view name);
  /// Marks a tensor as dealt with elsewhere, or of no use. No error if the file lacks it.
  void claim(std::string_view name);
  /// Takes back the declaration of a matrix, which stays claimed: load() leaves `linear` alone.
  void leave_out(const Linear* linear);
  /// Throws Error(kBadModel) naming the first tensor of the file that nothing declared or claimed.
  void check_all_claimed() const;

  int64_t bytes() const { return static_cast<int64_t>(bytes_); }  ///< memory that load() allocates
  int64_t matrix_elements() const { return matrix_elements_; }    ///< sum of rows * cols
  int64_t widest_row() const;                                     ///< most columns of a matrix
  int64_t least_unit_bytes() const;                               ///< least buffer of a thread that loads
  int64_t quantised_row_bytes() const;  ///< of one activation row in every format that some matrix needs
  int64_t resident() const { return memory_.resident(); }

  /// Allocates bytes() and fills every target; returns the file bytes read. Throws Error(kRuntime), before
  /// any work, if bytes() plus `extra_bytes` (what the caller allocates next) exceed the memory available; or
  /// if reading fails.
  int64_t load(Context& ctx, int64_t extra_bytes, const ReadOptions& options);

 private:
  struct Entry {
    const GgufTensor* tensor;
    int64_t begin, count;  // rows of a matrix, elements of a vector
    Linear* linear;        // null: a vector
    const float** vector;
    size_t offset;            // into memory_
    bool transposed = false;  // of a matrix
    size_t bytes = 0;         // in memory_
  };
  struct Unit {  // one contiguous read
    int entry;
    int64_t begin, end;  // rows or elements of the entry
  };
  const GgufTensor& take(std::string_view name, int64_t rows, int64_t cols);
  void add(Entry entry, size_t bytes);
  std::vector<Unit> make_units(int64_t read_bytes) const;
  size_t unit_bytes(const Unit& unit) const;
  size_t unit_memory(const Unit& unit) const;
  void pack_transposed(const Entry& entry, const uint8_t* source, float* scratch, uint8_t* out) const;
  Status read_unit(const Unit& unit, uint8_t* buffer);

  const GgufFile& file_;
  std::vector<Entry> entries_;
  std::vector<bool> claimed_;  // by index of file_.tensors()
  size_t bytes_ = 0;
  int64_t matrix_elements_ = 0;
  AlignedBuffer memory_;
};

}  // namespace mete
