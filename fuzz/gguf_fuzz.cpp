// The GGUF reader on arbitrary bytes: parse, every typed getter on every key, every tensor read.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/error.h"
#include "format/gguf.h"

namespace {

using namespace mete;

void use_metadata(const GgufMetadata& metadata) {
  for (const auto& [key, value] : metadata.all()) {
    (void)metadata.integer(key, INT64_MIN, INT64_MAX);
    (void)metadata.integer_or(key, 0, 0, 100);
    (void)metadata.number(key);
    (void)metadata.boolean_or(key, false);
    if (const auto text = metadata.string(key)) METE_CHECK(text->data() == value.strings[0].data());
    if (const auto list = metadata.strings(key)) METE_CHECK(list->size() == value.count);
    if (const auto list = metadata.integers(key)) METE_CHECK(list->size() == value.count);
    if (const auto list = metadata.floats(key)) METE_CHECK(list->size() == value.count);
    // The first and last element as plain values.
    if (value.is_number() && value.count > 0) {
      (void)value.number(0);
      (void)value.number(value.count - 1);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto file = GgufFile::parse({data, size});
  if (!file) {
    METE_CHECK(file.error().code() == Code::kBadModel);
    METE_CHECK(file.error().message().find('\n') == std::string::npos);
    return 0;
  }
  use_metadata(file->metadata());
  uint64_t total = 0;
  std::vector<uint8_t> bytes;
  for (const GgufTensor& tensor : file->tensors()) {
    METE_CHECK(tensor.bytes == row_bytes(tensor.type, tensor.cols()) * static_cast<uint64_t>(tensor.rows()));
    METE_CHECK(file->find(tensor.name) == &tensor);
    bytes.resize(tensor.bytes);
    METE_CHECK(static_cast<bool>(file->read(tensor, 0, bytes)));
    total += tensor.bytes;
  }
  METE_CHECK(total <= size);  // tensors do not overlap
  return 0;
}
