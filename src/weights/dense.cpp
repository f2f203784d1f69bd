#include "weights/dense.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>

#include "base/error.h"
#include "base/half.h"
#include "format/byte_source.h"
#include "quant/activation.h"
#include "quant/dequant.h"
#include "quant/pack.h"
#include "quant/quantize.h"

namespace mete {
namespace {

size_t packed_bytes(DType type, int64_t rows, int64_t cols) {
  return static_cast<size_t>(panel_count(rows)) * panel_bytes(type, cols);
}

std::string shape(const GgufTensor& tensor) {
  std::string text;
  for (int i = 0; i < tensor.n_dims; ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : " x ", tensor.dims[static_cast<size_t>(i)]);
  }
  return text;
}

void to_floats(DType type, const uint8_t* source, int64_t n, float* out) {
  if (type == DType::kF32) {
    std::memcpy(out, source, static_cast<size_t>(n) * 4);
    return;
  }
  for (int64_t i = 0; i < n; ++i) {
    uint16_t bits;
    std::memcpy(&bits, source + 2 * i, 2);
    out[i] = type == DType::kF16 ? to_float(Half{bits}) : to_float(BFloat16{bits});
  }
}

}  // namespace

DenseWeights::DenseWeights(const GgufFile& file) : file_(file), claimed_(file.tensors().size(), false) {}

const GgufTensor& DenseWeights::stacked(std::string_view name) {
  const GgufTensor* tensor = file_.find(name);
  if (tensor == nullptr) throw bad_model("tensor \"{}\" is missing", name);
  const auto index = static_cast<size_t>(tensor - file_.tensors().data());
  if (claimed_[index]) throw bad_model("tensor \"{}\" is used twice", name);
  claimed_[index] = true;
  return *tensor;
}

/// The tensor, claimed and with its shape checked ([cols] if rows == 0).
const GgufTensor& DenseWeights::take(std::string_view name, int64_t rows, int64_t cols) {
  const GgufTensor* tensor = &stacked(name);
  const bool fits = tensor->dims[0] == cols && tensor->dims[1] == std::max<int64_t>(rows, 1) &&
                    tensor->dims[2] == 1 && tensor->dims[3] == 1;
  if (!fits) {
    const std::string expected = rows == 0 ? fmt::format("{}", cols) : fmt::format("{} x {}", cols, rows);
    throw bad_model("tensor \"{}\" is {}, expected {}", name, shape(*tensor), expected);
  }
  if (rows == 0 && info(tensor->type).block != 1) {
    throw bad_model("tensor \"{}\" has type {}, expected F32, F16 or BF16", name, mete::name(tensor->type));
  }
  return *tensor;
}

void DenseWeights::add(Entry entry, size_t bytes) {
  entry.bytes = (bytes + 63) / 64 * 64;
  entry.offset = bytes_;
  bytes_ += entry.bytes;
  entries_.push_back(entry);
}

void DenseWeights::leave_out(const Linear* linear) {
  std::erase_if(entries_, [linear](const Entry& e) { return e.linear == linear; });
  bytes_ = 0;
  for (Entry& entry : entries_) {
    entry.offset = bytes_;
    bytes_ += entry.bytes;
  }
}

void DenseWeights::matrix_parts(std::string_view name, int64_t cols, std::span<const MatrixPart> parts) {
  int64_t rows = 0;
  for (const MatrixPart& part : parts) rows += part.rows;
  const GgufTensor& tensor = take(name, rows, cols);
  int64_t row = 0;
  for (const MatrixPart& part : parts) {
    part.linear->type = tensor.type;
    part.linear->rows = part.rows;
    part.linear->cols = cols;
    add({&tensor, row, part.rows, part.linear, nullptr, 0}, packed_bytes(tensor.type, part.rows, cols));
    row += part.rows;
  }
  matrix_elements_ += rows * cols;
}

void DenseWeights::stacked_part(const GgufTensor& tensor, int64_t first_row, int64_t rows, Linear* linear) {
  linear->type = tensor.type;
  linear->rows = rows;
  linear->cols = tensor.cols();
  add({&tensor, first_row, rows, linear, nullptr, 0}, packed_bytes(tensor.type, rows, tensor.cols()));
}

void DenseWeights::transposed_part(const GgufTensor& tensor, int64_t first_row, int64_t rows,
                                   Linear* linear) {
  const bool floats = info(tensor.type).block == 1;
  linear->type = floats ? tensor.type : DType::kF32;
  linear->rows = tensor.cols();
  linear->cols = rows;
  add({&tensor, first_row, rows, linear, nullptr, 0, true}, packed_bytes(linear->type, linear->rows, rows));
}

bool DenseWeights::optional_table(std::string_view name, int64_t rows, int64_t cols, const float** data) {
  if (!has(name)) return false;
  const GgufTensor& tensor = take(name, rows, cols);
  if (info(tensor.type).block != 1) {
    throw bad_model("tensor \"{}\" has type {}, expected F32, F16 or BF16", name, mete::name(tensor.type));
  }
  add({&tensor, 0, rows * cols, nullptr, data, 0}, static_cast<size_t>(rows * cols) * 4);
  return true;
}

void DenseWeights::matrix(std::string_view name, int64_t rows, int64_t cols, Linear* linear) {
  const MatrixPart part{rows, linear};
  matrix_parts(name, cols, {&part, 1});
}

bool DenseWeights::optional_matrix(std::string_view name, int64_t rows, int64_t cols, Linear* linear) {
  if (!has(name)) return false;
  matrix(name, rows, cols, linear);
  return true;
}

bool DenseWeights::optional_vector_parts(std::string_view name, std::span<const VectorPart> parts) {
  if (!has(name)) return false;
  int64_t n = 0;
  for (const VectorPart& part : parts) n += part.n;
  const GgufTensor& tensor = take(name, 0, n);
  int64_t begin = 0;
  for (const VectorPart& part : parts) {
    add({&tensor, begin, part.n, nullptr, part.data, 0}, static_cast<size_t>(part.n) * 4);
    begin += part.n;
  }
  return true;
}

bool DenseWeights::optional_vector(std::string_view name, int64_t n, const float** data) {
  const VectorPart part{n, data};
  return optional_vector_parts(name, {&part, 1});
}

void DenseWeights::vector(std::string_view name, int64_t n, const float** data) {
  if (!optional_vector(name, n, data)) throw bad_model("tensor \"{}\" is missing", name);
}

void DenseWeights::claim(std::string_view name) {
  const GgufTensor* tensor = file_.find(name);
  if (tensor != nullptr) claimed_[static_cast<size_t>(tensor - file_.tensors().data())] = true;
}

void DenseWeights::check_all_claimed() const {
  for (size_t i = 0; i < claimed_.size(); ++i) {
    if (claimed_[i]) continue;
    const GgufTensor& tensor = file_.tensors()[i];
    throw bad_model("tensor \"{}\" ({}, {}) is not part of this architecture", tensor.name,
                    mete::name(tensor.type), shape(tensor));
  }
}

int64_t DenseWeights::widest_row() const {
  int64_t cols = 0;
  for (const Entry& e : entries_) cols = std::max(cols, e.linear != nullptr ? e.linear->cols : 0);
  return cols;
}

int64_t DenseWeights::least_unit_bytes() const {
  size_t bytes = 0;
  for (const Unit& unit : make_units(1)) bytes = std::max(bytes, unit_memory(unit));
  return static_cast<int64_t>(bytes);
}

int64_t DenseWeights::quantised_row_bytes() const {
  size_t widest[3] = {};  // by ActivationKind
  for (const Entry& e : entries_) {
    if (e.linear == nullptr) continue;
    const ActivationKind kind = activation_kind(e.linear->type);
    if (kind == ActivationKind::kF32) continue;  // used where it lies
    size_t& bytes = widest[static_cast<int>(kind)];
    bytes = std::max(bytes, activation_row_bytes(kind, e.linear->cols));
  }
  return static_cast<int64_t>(widest[0] + widest[1] + widest[2]);
}

/// Whole panels of about `read_bytes` each, in file order.
std::vector<DenseWeights::Unit> DenseWeights::make_units(int64_t read_bytes) const {
  std::vector<int> order(entries_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int>(i);
  std::stable_sort(order.begin(), order.end(), [this](int a, int b) {
    const GgufTensor &x = *entries_[static_cast<size_t>(a)].tensor,
                     &y = *entries_[static_cast<size_t>(b)].tensor;
    return x.part != y.part ? x.part < y.part : x.offset < y.offset;  // stable: rows in order of declaration
  });
  std::vector<Unit> units;
  for (const int index : order) {
    const Entry& entry = entries_[static_cast<size_t>(index)];
    if (entry.linear == nullptr || entry.transposed) {
      units.push_back({index, 0, entry.count});
      continue;
    }
    const auto row = static_cast<int64_t>(row_bytes(entry.tensor->type, entry.tensor->cols()));
    const int64_t step = std::max<int64_t>(1, read_bytes / (row * kPanelRows)) * kPanelRows;
    for (int64_t begin = 0; begin < entry.count; begin += step) {
      units.push_back({index, begin, std::min(entry.count, begin + step)});
    }
  }
  return units;
}

size_t DenseWeights::unit_bytes(const Unit& unit) const {
  const Entry& entry = entries_[static_cast<size_t>(unit.entry)];
  const int64_t width = entry.linear == nullptr ? 1 : entry.tensor->cols();
  return row_bytes(entry.tensor->type, width) * static_cast<size_t>(unit.end - unit.begin);
}

/// What read_unit() needs: room for a direct read and, for a transposed part, its values behind them.
size_t DenseWeights::unit_memory(const Unit& unit) const {
  const Entry& entry = entries_[static_cast<size_t>(unit.entry)];
  const size_t bytes = (unit_bytes(unit) + kDirectSlack + 63) / 64 * 64;
  if (!entry.transposed) return bytes;
  return bytes + static_cast<size_t>((entry.tensor->cols() + 2 * kPanelRows) * entry.count) * sizeof(float);
}

/// `scratch` holds cols + 2 * kPanelRows columns of entry.count floats.
void DenseWeights::pack_transposed(const Entry& entry, const uint8_t* source, float* scratch,
                                   uint8_t* out) const {
  const int64_t cols = entry.tensor->cols(), n = entry.count;
  const size_t step = row_bytes(entry.tensor->type, cols);
  float* row = scratch + cols * n;
  auto* rows = reinterpret_cast<uint8_t*>(row + kPanelRows * n);
  for (int64_t r = 0; r < n; ++r) {
    dequantize_row(entry.tensor->type, source + static_cast<size_t>(r) * step, scratch + r * cols, cols);
  }
  const DType type = entry.linear->type;
  const size_t packed_row = row_bytes(type, n);
  for (int64_t first = 0; first < cols; first += kPanelRows) {
    const auto count = static_cast<int>(std::min<int64_t>(kPanelRows, cols - first));
    for (int i = 0; i < count; ++i) {
      for (int64_t r = 0; r < n; ++r) row[r] = scratch[r * cols + first + i];
      quantize_row(type, row, rows + static_cast<size_t>(i) * packed_row, n);
    }
    pack_panel(type, rows, count, n, out + static_cast<size_t>(first / kPanelRows) * panel_bytes(type, n));
  }
}

/// Reads and packs one unit. `buffer` holds unit_memory(unit).
Status DenseWeights::read_unit(const Unit& unit, uint8_t* buffer) {
  const Entry& entry = entries_[static_cast<size_t>(unit.entry)];
  const DType type = entry.tensor->type;
  const int64_t cols = entry.tensor->cols();
  const size_t step = row_bytes(type, entry.linear == nullptr ? 1 : cols);
  const auto offset = static_cast<uint64_t>(entry.begin + unit.begin) * step;
  const size_t bytes = unit_bytes(unit);
  const auto got = file_.read_into(*entry.tensor, offset, bytes, {buffer, bytes + kDirectSlack});
  if (!got) return got.error();
  const uint8_t* source = *got;
  uint8_t* out = memory_.data() + entry.offset;
  if (entry.linear == nullptr) {
    to_floats(type, source, entry.count, reinterpret_cast<float*>(out));
    return {};
  }
  if (entry.transposed) {
    auto* scratch = reinterpret_cast<float*>(buffer + (bytes + kDirectSlack + 63) / 64 * 64);
    pack_transposed(entry, source, scratch, out);
    return {};
  }
  const size_t stride = panel_bytes(type, cols);
  for (int64_t r = unit.begin; r < unit.end; r += kPanelRows) {
    const auto rows = static_cast<int>(std::min<int64_t>(kPanelRows, unit.end - r));
    pack_panel(type, source + static_cast<size_t>(r - unit.begin) * step, rows, cols,
               out + static_cast<size_t>(r / kPanelRows) * stride);
  }
  return {};
}

int64_t DenseWeights::load(Context& ctx, int64_t extra_bytes, const ReadOptions& options) {
  const std::vector<Unit> units = make_units(options.read_bytes);
  size_t buffer_bytes = 0;
  int64_t total = 0;
  for (const Unit& unit : units) {
    buffer_bytes = std::max(buffer_bytes, unit_memory(unit));
    total += static_cast<int64_t>(unit_bytes(unit));
  }
  const auto workers = static_cast<size_t>(ctx.pool.size());
  const size_t needed = bytes_ + static_cast<size_t>(extra_bytes) + workers * buffer_bytes;
  const size_t available = memory_available();
  if (available != 0 && needed > available) {
    throw run_failure("out of memory: the model needs {} bytes, {} bytes are available", needed, available);
  }
  memory_ = AlignedBuffer(bytes_, true);
  std::vector<AlignedBuffer> buffers;
  for (size_t i = 0; i < workers; ++i) buffers.emplace_back(buffer_bytes);

  const int64_t all = options.done_before + total + options.left_after;
  const auto report = [&](int64_t bytes) {
    options.progress(options.progress_user, options.done_before + bytes, all);
  };
  std::mutex mutex;  // guards error and done
  std::optional<Error> error;
  std::atomic<bool> failed{false};
  int64_t done = 0;
  ctx.pool.parallel_for(static_cast<int64_t>(units.size()), 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end && !failed; ++i) {
      const Unit& unit = units[static_cast<size_t>(i)];
      const Status status = read_unit(unit, buffers[static_cast<size_t>(worker)].data());
      const std::lock_guard lock(mutex);
      if (!status) {
        if (!error) error = status.error();
        failed = true;
        return;
      }
      done += static_cast<int64_t>(unit_bytes(unit));
      if (worker == 0 && options.progress != nullptr) report(done);
    }
  });
  if (error) throw *error;
  if (options.progress != nullptr) report(total);
  for (const Entry& entry : entries_) {
    const uint8_t* place = memory_.data() + entry.offset;
    if (entry.linear != nullptr) {
      entry.linear->panels = place;
    } else {
      *entry.vector = reinterpret_cast<const float*>(place);
    }
  }
  return total;
}

}  // namespace mete
