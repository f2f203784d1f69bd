#include "format/gguf.h"

#include <cstdlib>
#include <optional>
#include <unordered_map>

#include "format/byte_source.h"
#include "format/gguf_reader.h"

namespace mete {

struct GgufFile::Impl {
  std::vector<std::unique_ptr<ByteSource>> sources;
  std::vector<std::string> paths;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;
  std::unordered_map<std::string_view, size_t> index;  ///< views of tensors[i].name
  int version = 0;

  Status add(std::unique_ptr<ByteSource> source, GgufPart part);
  Status build_index();
};

namespace {

/// "PREFIX-00002-of-00005.gguf" taken apart.
struct SplitName {
  std::string prefix;
  int number;  ///< from 1
  int count;
};

std::optional<SplitName> parse_split_name(const std::string& path) {
  constexpr std::string_view kShape = "-00000-of-00000.gguf";
  if (path.size() <= kShape.size()) return std::nullopt;
  const std::string tail = path.substr(path.size() - kShape.size());
  for (size_t i = 0; i < tail.size(); ++i) {
    const bool matches = kShape[i] == '0' ? tail[i] >= '0' && tail[i] <= '9' : tail[i] == kShape[i];
    if (!matches) return std::nullopt;
  }
  return SplitName{path.substr(0, path.size() - kShape.size()), std::atoi(tail.c_str() + 1),
                   std::atoi(tail.c_str() + 10)};
}

std::string split_path(const SplitName& split, int number) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", split.prefix, number, split.count);
}

/// A part's own count of parts must be 1, or `count` with this part at place `number` (from 1).
Status check_split_keys(const GgufPart& part, const std::string& path, int number, int count) {
  constexpr int64_t kMaxParts = 99999;
  const auto declared = part.metadata.integer_or("split.count", 1, 0, kMaxParts);
  if (!declared) return bad_model("{}: {}", path, declared.error().message());
  if (*declared <= 1 && count == 1) return {};
  if (*declared != count) {
    return bad_model("{}: key \"split.count\" is {}, expected {}, from the file's name", path, *declared,
                     count);
  }
  const auto place = part.metadata.integer("split.no", 0, kMaxParts);
  if (!place) return bad_model("{}: {}", path, place.error().message());
  if (*place != number - 1)
    return bad_model("{}: key \"split.no\" is {}, expected {}", path, *place, number - 1);
  return {};
}

}  // namespace

Status GgufFile::Impl::add(std::unique_ptr<ByteSource> source, GgufPart part) {
  const int place = static_cast<int>(sources.size());
  for (GgufTensor& tensor : part.tensors) {
    tensor.part = place;
    tensors.push_back(std::move(tensor));
  }
  if (place == 0) {
    version = part.version;
    metadata = std::move(part.metadata);
  } else if (part.version != version) {
    return bad_model("{}: GGUF version is {}, expected {} as in the first part", source->path(), part.version,
                     version);
  }
  paths.push_back(source->path());
  sources.push_back(std::move(source));
  return {};
}

Status GgufFile::Impl::build_index() {
  index.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto [place, inserted] = index.emplace(tensors[i].name, i);
    if (!inserted) {
      return bad_model("{}: tensor \"{}\" is there twice, first in {}",
                       paths[static_cast<size_t>(tensors[i].part)], tensors[i].name,
                       paths[static_cast<size_t>(tensors[place->second].part)]);
    }
  }
  return {};
}

Result<GgufFile> GgufFile::open(const std::string& path) {
  const SplitName split = parse_split_name(path).value_or(SplitName{path, 1, 1});
  const bool single = split.count == 1;
  if (split.number < 1 || split.number > split.count) {
    return bad_model("{}: part {} of {} in the file's name, expected 1 to {}", path, split.number,
                     split.count, split.count);
  }
  auto impl = std::make_unique<Impl>();
  for (int number = 1; number <= split.count; ++number) {
    const std::string part_path = single ? path : split_path(split, number);
    auto source = ByteSource::open(part_path);
    if (!source && !single) {
      return run_failure("{} (part {} of {} of a split model)", source.error().message(), number,
                         split.count);
    }
    if (!source) return source.error();
    auto part = GgufReader(**source).read();
    if (!part) return part.error();
    Status status = check_split_keys(*part, part_path, number, split.count);
    if (status) status = impl->add(std::move(*source), std::move(*part));
    if (!status) return status.error();
  }
  Status status = impl->build_index();
  if (!status) return status.error();
  const int64_t found = static_cast<int64_t>(impl->tensors.size());
  const auto total = impl->metadata.integer_or("split.tensors.count", found, 0, INT64_MAX);
  if (!total) return bad_model("{}: {}", path, total.error().message());
  if (*total != found) {
    return bad_model("{}: key \"split.tensors.count\" is {}, expected {}, the sum over the parts", path,
                     *total, found);
  }
  return GgufFile(std::move(impl));
}

Result<GgufFile> GgufFile::parse(std::span<const uint8_t> bytes) {
  auto impl = std::make_unique<Impl>();
  auto source = ByteSource::memory("<memory>", bytes);
  auto part = GgufReader(*source).read();
  if (!part) return part.error();
  Status status = check_split_keys(*part, source->path(), 1, 1);
  if (status) status = impl->add(std::move(source), std::move(*part));
  if (status) status = impl->build_index();
  if (!status) return status.error();
  return GgufFile(std::move(impl));
}

GgufFile::GgufFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GgufFile::GgufFile(GgufFile&&) noexcept = default;
GgufFile& GgufFile::operator=(GgufFile&&) noexcept = default;
GgufFile::~GgufFile() = default;

const GgufMetadata& GgufFile::metadata() const { return impl_->metadata; }
std::span<const GgufTensor> GgufFile::tensors() const { return impl_->tensors; }
int GgufFile::version() const { return impl_->version; }
const std::vector<std::string>& GgufFile::paths() const { return impl_->paths; }

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found = impl_->index.find(name);
  return found == impl_->index.end() ? nullptr : &impl_->tensors[found->second];
}

uint64_t GgufFile::file_bytes() const {
  uint64_t sum = 0;
  for (const auto& source : impl_->sources) sum += source->size();
  return sum;
}

Status GgufFile::read(const GgufTensor& tensor, uint64_t begin, std::span<uint8_t> out) const {
  METE_CHECK(begin <= tensor.bytes && out.size() <= tensor.bytes - begin);
  return impl_->sources[static_cast<size_t>(tensor.part)]->read(tensor.offset + begin, out);
}

Result<const uint8_t*> GgufFile::read_into(const GgufTensor& tensor, uint64_t begin, uint64_t bytes,
                                           std::span<uint8_t> buffer) const {
  METE_CHECK(begin <= tensor.bytes && bytes <= tensor.bytes - begin);
  return impl_->sources[static_cast<size_t>(tensor.part)]->read_into(tensor.offset + begin, bytes, buffer);
}

bool GgufFile::spare_cache() {
  bool direct = true;
  for (const auto& source : impl_->sources) direct = source->spare_cache() && direct;
  return direct;
}

}  // namespace mete
