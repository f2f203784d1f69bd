#include "format/gguf_reader.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace mete {
namespace {

constexpr size_t kWindowBytes = 64 * 1024;
// The smallest possible records: a one-byte key with a one-byte value; a one-byte name with one dimension.
constexpr uint64_t kMinPairBytes = 8 + 1 + 4 + 1;
constexpr uint64_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;

/// Bytes of a number type, 0 for strings, arrays and ids that do not exist.
uint64_t element_bytes(int32_t type) {
  switch (static_cast<GgufValueType>(type)) {
    case GgufValueType::kU8:
    case GgufValueType::kI8:
    case GgufValueType::kBool:
      return 1;
    case GgufValueType::kU16:
    case GgufValueType::kI16:
      return 2;
    case GgufValueType::kU32:
    case GgufValueType::kI32:
    case GgufValueType::kF32:
      return 4;
    case GgufValueType::kU64:
    case GgufValueType::kI64:
    case GgufValueType::kF64:
      return 8;
    case GgufValueType::kString:
    case GgufValueType::kArray:
      return 0;
  }
  return 0;
}

bool valid_value_type(int32_t type) { return type >= 0 && type <= static_cast<int32_t>(GgufValueType::kF64); }

std::string shape_text(const GgufTensor& tensor) {
  std::string text = "[";
  for (int i = 0; i < tensor.n_dims; ++i) text += fmt::format("{}{}", i == 0 ? "" : ", ", tensor.dims[i]);
  return text + "]";
}

}  // namespace

/// Bump allocator: many short strings cost one allocation per 64 KiB.
class GgufReader::Arena {
 public:
  uint8_t* allocate(size_t bytes) {
    if (bytes > kWindowBytes / 4) {
      large_.push_back(std::make_unique<uint8_t[]>(bytes));
      return large_.back().get();
    }
    if (bytes > left_) {
      blocks_.push_back(std::make_unique<uint8_t[]>(kWindowBytes));
      left_ = kWindowBytes;
    }
    uint8_t* out = blocks_.back().get() + (kWindowBytes - left_);
    left_ -= bytes;
    return out;
  }

 private:
  std::vector<std::unique_ptr<uint8_t[]>> blocks_;
  std::vector<std::unique_ptr<uint8_t[]>> large_;
  size_t left_ = 0;
};

GgufReader::GgufReader(const ByteSource& source) : source_(source), arena_(std::make_shared<Arena>()) {}

Result<GgufPart> GgufReader::read() {
  bool ok = read_header();
  for (uint64_t i = 0; ok && i < n_pairs_; ++i) ok = read_pair();
  ok = ok && read_alignment();
  for (uint64_t i = 0; ok && i < n_tensors_; ++i) ok = read_tensor_info();
  ok = ok && place_tensors();
  if (!ok) return *error_;
  part_.metadata.owners_.push_back(arena_);
  return std::move(part_);
}

bool GgufReader::fail(Error error) {
  error_ = std::move(error);
  return false;
}

bool GgufReader::need(uint64_t bytes, const char* field) {
  if (bytes > remaining()) {
    return fail(bad_model("{}: the file ends inside {} {}: {} bytes at offset {}, expected {}",
                          source_.path(), subject_, field, remaining(), position_, bytes));
  }
  if (bytes > kMaxGgufHeaderBytes || position_ > kMaxGgufHeaderBytes - bytes) {
    return fail(bad_model(
        "{}: {} {} of {} bytes at offset {} goes beyond the first {} bytes, expected metadata within them",
        source_.path(), subject_, field, bytes, position_, kMaxGgufHeaderBytes));
  }
  return true;
}

/// Small fixed-size fields, through the window.
bool GgufReader::take(void* out, size_t bytes, const char* field) {
  if (!need(bytes, field)) return false;
  if (position_ < window_begin_ || position_ + bytes > window_begin_ + window_.size()) {
    window_.resize(std::min<uint64_t>(kWindowBytes, remaining()));
    window_begin_ = position_;
    const Status status = source_.read(position_, window_);
    if (!status) return fail(status.error());
  }
  std::memcpy(out, window_.data() + (position_ - window_begin_), bytes);
  position_ += bytes;
  return true;
}

/// A run of bytes, copied into the arena.
bool GgufReader::take_bytes(uint64_t bytes, const uint8_t** out, const char* field) {
  if (bytes == 0) return true;  // *out stays null
  if (!need(bytes, field)) return false;
  uint8_t* to = arena_->allocate(bytes);
  *out = to;
  if (bytes <= kWindowBytes / 4) return take(to, bytes, field);
  const Status status = source_.read(position_, {to, static_cast<size_t>(bytes)});
  if (!status) return fail(status.error());
  position_ += bytes;
  return true;
}

bool GgufReader::take_string(uint64_t limit, const char* field, std::string_view* out) {
  uint64_t length = 0;
  if (!take(&length, field)) return false;
  if (length > limit) {
    return fail(bad_model("{}: {} {} has a length of {}, expected at most {}", source_.path(), subject_,
                          field, length, limit));
  }
  const uint8_t* bytes = nullptr;
  if (!take_bytes(length, &bytes, field)) return false;
  *out = {reinterpret_cast<const char*>(bytes), static_cast<size_t>(length)};
  return true;
}

/// A key or tensor name: not empty, printable ASCII (messages print it, maps are keyed by it).
bool GgufReader::take_name(uint64_t limit, const char* field, std::string_view* out) {
  const uint64_t at = position_;
  if (!take_string(limit, field, out)) return false;
  if (out->empty()) {
    return fail(bad_model("{}: {} {} at offset {} is empty, expected 1 to {} characters", source_.path(),
                          subject_, field, at, limit));
  }
  for (const char c : *out) {
    if (c < 0x21 || c > 0x7e) {
      return fail(bad_model("{}: {} {} at offset {} has a byte 0x{:02x}, expected printable ASCII",
                            source_.path(), subject_, field, at, static_cast<uint8_t>(c)));
    }
  }
  return true;
}

bool GgufReader::read_header() {
  subject_ = "header";
  char magic[4] = {};
  uint32_t version = 0;
  if (!take(magic, 4, "magic")) return false;
  if (std::memcmp(magic, "GGUF", 4) != 0) {
    return fail(bad_model("{}: magic is {:02x} {:02x} {:02x} {:02x}, expected 47 47 55 46 (GGUF)",
                          source_.path(), static_cast<uint8_t>(magic[0]), static_cast<uint8_t>(magic[1]),
                          static_cast<uint8_t>(magic[2]), static_cast<uint8_t>(magic[3])));
  }
  if (!take(&version, "version")) return false;
  const uint32_t swapped = __builtin_bswap32(version);
  if (swapped >= 1 && swapped <= 3) {
    return fail(bad_model("{}: version {} is byte-swapped: a big-endian file, expected little-endian",
                          source_.path(), swapped));
  }
  if (version != 2 && version != 3) {
    return fail(bad_model("{}: GGUF version is {}, expected 2 or 3", source_.path(), version));
  }
  part_.version = static_cast<int>(version);
  if (!take(&n_tensors_, "tensor count") || !take(&n_pairs_, "key count")) return false;
  if (n_pairs_ > remaining() / kMinPairBytes) {
    return fail(bad_model("{}: key count is {}, expected at most {} in the {} bytes left", source_.path(),
                          n_pairs_, remaining() / kMinPairBytes, remaining()));
  }
  const uint64_t infos = std::min(remaining(), kMaxGgufHeaderBytes) / kMinTensorInfoBytes;
  if (n_tensors_ > infos) {
    return fail(bad_model("{}: tensor count is {}, expected at most {} in the {} bytes left", source_.path(),
                          n_tensors_, infos, remaining()));
  }
  return true;
}

bool GgufReader::read_pair() {
  subject_ = "metadata";
  std::string_view key;
  int32_t type = 0;
  if (!take_name(kMaxGgufKeyBytes, "key", &key)) return false;
  subject_ = fmt::format("key \"{}\"", key);
  if (!take(&type, "type")) return false;
  if (!valid_value_type(type)) {
    return fail(bad_model("{}: {} has value type {}, expected 0 to 12", source_.path(), subject_, type));
  }
  GgufValue value{static_cast<GgufValueType>(type), GgufValueType::kU8, 1, {}, {}};
  const bool ok = value.type == GgufValueType::kArray ? read_array(&value) : read_scalar(&value);
  if (!ok) return false;
  if (!part_.metadata.values_.emplace(std::string(key), std::move(value)).second) {
    return fail(bad_model("{}: {} is there twice, expected unique keys", source_.path(), subject_));
  }
  return true;
}

bool GgufReader::read_scalar(GgufValue* value) {
  value->element = value->type;
  if (value->type != GgufValueType::kString) return read_numbers(value);
  value->strings.resize(1);
  return take_string(kMaxGgufHeaderBytes, "string", &value->strings[0]);
}

bool GgufReader::read_array(GgufValue* value) {
  int32_t type = 0;
  if (!take(&type, "array type") || !take(&value->count, "array count")) return false;
  if (!valid_value_type(type) || type == static_cast<int32_t>(GgufValueType::kArray)) {
    return fail(bad_model("{}: {} is an array of {}, expected numbers, booleans or strings", source_.path(),
                          subject_,
                          valid_value_type(type) ? "arrays" : fmt::format("unknown type {}", type)));
  }
  value->element = static_cast<GgufValueType>(type);
  const uint64_t least = value->element == GgufValueType::kString ? 8 : element_bytes(type);
  if (value->count > remaining() / least) {
    return fail(bad_model("{}: {} has {} array elements, expected at most {} in the {} bytes left",
                          source_.path(), subject_, value->count, remaining() / least, remaining()));
  }
  if (value->element != GgufValueType::kString) return read_numbers(value);
  for (uint64_t i = 0; i < value->count; ++i) {
    std::string_view text;
    if (!take_string(kMaxGgufHeaderBytes, "string", &text)) return false;
    value->strings.push_back(text);
  }
  return true;
}

/// `count` packed numbers of type `element`; the caller has bounded an array's count by the bytes left.
bool GgufReader::read_numbers(GgufValue* value) {
  const uint64_t bytes = value->count * element_bytes(static_cast<int32_t>(value->element));
  const uint8_t* data = nullptr;
  if (!take_bytes(bytes, &data, "value")) return false;
  value->bytes = {data, static_cast<size_t>(bytes)};
  if (value->element != GgufValueType::kBool) return true;
  for (const uint8_t b : value->bytes) {
    if (b > 1)
      return fail(bad_model("{}: {} has a boolean of {}, expected 0 or 1", source_.path(), subject_, b));
  }
  return true;
}

bool GgufReader::read_alignment() {
  const GgufValue* value = part_.metadata.find("general.alignment");
  if (value == nullptr) return true;
  if (value->type != GgufValueType::kU32) {
    return fail(bad_model("{}: key \"general.alignment\" has type {}, expected U32", source_.path(),
                          name(value->type)));
  }
  const int64_t alignment = value->integer();
  if (alignment < 8 || alignment > kMaxGgufAlignment || (alignment & (alignment - 1)) != 0) {
    return fail(bad_model("{}: key \"general.alignment\" is {}, expected a power of two from 8 to {}",
                          source_.path(), alignment, kMaxGgufAlignment));
  }
  alignment_ = static_cast<uint64_t>(alignment);
  return true;
}

bool GgufReader::read_tensor_info() {
  subject_ = fmt::format("tensor {}", part_.tensors.size());
  std::string_view text;
  if (!take_name(kMaxGgufNameBytes, "name", &text)) return false;
  subject_ = fmt::format("tensor \"{}\"", text);
  if (!tensor_names_.insert(text).second) {
    return fail(bad_model("{}: {} is there twice, expected unique tensor names", source_.path(), subject_));
  }
  GgufTensor tensor{std::string(text), DType::kF32, 0, {1, 1, 1, 1}, 0, 0, 0};
  uint32_t n_dims = 0;
  if (!take(&n_dims, "dimension count")) return false;
  if (n_dims < 1 || n_dims > 4) {
    return fail(bad_model("{}: {} has {} dimensions, expected 1 to 4", source_.path(), subject_, n_dims));
  }
  tensor.n_dims = static_cast<int>(n_dims);
  for (int i = 0; i < tensor.n_dims; ++i) {
    if (!take(&tensor.dims[i], "dimension")) return false;
    if (tensor.dims[i] < 1) {
      return fail(bad_model("{}: {} has dimension {} = {}, expected 1 to 2^63 - 1", source_.path(), subject_,
                            i, tensor.dims[i]));
    }
  }
  int32_t type_id = 0;
  if (!take(&type_id, "type") || !take(&tensor.offset, "offset")) return false;
  if (!check_tensor(tensor, type_id)) return false;
  tensor.type = static_cast<DType>(type_id);
  const DTypeInfo& geometry = info(tensor.type);
  uint64_t bytes = static_cast<uint64_t>(tensor.dims[0] / geometry.block);
  bool overflow = __builtin_mul_overflow(bytes, static_cast<uint64_t>(geometry.bytes), &bytes);
  int64_t elements = tensor.dims[0];
  for (int i = 1; i < 4; ++i) {
    overflow |= __builtin_mul_overflow(bytes, static_cast<uint64_t>(tensor.dims[i]), &bytes);
    overflow |= __builtin_mul_overflow(elements, tensor.dims[i], &elements);
  }
  if (overflow) {
    return fail(bad_model("{}: {} has shape {}, expected a size below 2^63", source_.path(), subject_,
                          shape_text(tensor)));
  }
  tensor.bytes = bytes;
  part_.tensors.push_back(std::move(tensor));
  return true;
}

bool GgufReader::check_tensor(const GgufTensor& tensor, int32_t type_id) {
  const DTypeInfo* geometry = find_dtype(type_id);
  if (geometry == nullptr) {
    const char* known = gguf_type_name(type_id);
    return fail(bad_model(
        "{}: {} has type {}, expected one of F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K "
        "Q6_K IQ4_NL IQ4_XS MXFP4",
        source_.path(), subject_, known != nullptr ? known : fmt::format("id {} (unknown)", type_id)));
  }
  if (tensor.dims[0] % geometry->block != 0) {
    return fail(bad_model("{}: {} has rows of {} elements, expected a multiple of {} for type {}",
                          source_.path(), subject_, tensor.dims[0], geometry->block, geometry->name));
  }
  if (tensor.offset % alignment_ != 0) {
    return fail(bad_model("{}: {} has offset {}, expected a multiple of the alignment {}", source_.path(),
                          subject_, tensor.offset, alignment_));
  }
  return true;
}

/// Makes offsets absolute; every tensor must lie within the file and overlap no other.
bool GgufReader::place_tensors() {
  const uint64_t data_begin = (position_ + alignment_ - 1) / alignment_ * alignment_;
  std::vector<size_t> order(part_.tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto before = [this](size_t a, size_t b) {
    return part_.tensors[a].offset < part_.tensors[b].offset;
  };
  if (!std::is_sorted(order.begin(), order.end(), before)) std::sort(order.begin(), order.end(), before);
  uint64_t end = 0;  // of the tensor before, relative to the data section
  const GgufTensor* previous = nullptr;
  const uint64_t data_bytes = source_.size() < data_begin ? 0 : source_.size() - data_begin;
  for (const size_t i : order) {
    GgufTensor& tensor = part_.tensors[i];
    if (tensor.bytes > data_bytes || tensor.offset > data_bytes - tensor.bytes) {
      return fail(bad_model(
          "{}: tensor \"{}\" has {} bytes at data offset {}, expected within the {} bytes of the data "
          "section: the file is truncated or corrupt",
          source_.path(), tensor.name, tensor.bytes, tensor.offset, data_bytes));
    }
    if (previous != nullptr && tensor.offset < end) {
      return fail(bad_model("{}: tensor \"{}\" at data offset {} overlaps tensor \"{}\", expected {} or more",
                            source_.path(), tensor.name, tensor.offset, previous->name, end));
    }
    end = tensor.offset + tensor.bytes;
    previous = &tensor;
  }
  for (GgufTensor& tensor : part_.tensors) tensor.offset += data_begin;
  return true;
}

}  // namespace mete
