#include "weights/pack_experts.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "format/byte_source.h"
#include "weights/expert_layout.h"

namespace mete {
namespace {

ExpertPackDirectory make_directory(const ExpertDeclaration& d, const ExpertLayout& layout,
                                   uint64_t fingerprint) {
  ExpertPackDirectory out;
  out.layers = static_cast<uint32_t>(d.layers.size());
  out.experts = static_cast<uint32_t>(d.experts);
  out.d_model = static_cast<uint64_t>(d.d_model);
  out.ffn = static_cast<uint64_t>(d.ffn);
  out.fingerprint = fingerprint;
  out.record_bytes = layout.slot_bytes;
  out.data_offset = ExpertPackDirectory::directory_bytes(out.layers, out.experts);
  for (const ExpertLayerLayout& l : layout.layers) {
    out.layer.push_back({l.gate_type, l.up_type, l.down_type, l.packed_bytes});
  }
  out.checksums.assign(d.layers.size() * static_cast<size_t>(d.experts), 0);
  return out;
}

/// A file open for writing at places.
class Output {
 public:
  explicit Output(std::string path) : path_(std::move(path)) {
    fd_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  ~Output() {
    if (fd_ >= 0) ::close(fd_);
  }
  Status opened() const {
    if (fd_ < 0) return run_failure("{}: cannot write: {}", path_, std::strerror(errno));
    return {};
  }
  uint64_t size() const {
    struct stat status {};
    return ::fstat(fd_, &status) == 0 ? static_cast<uint64_t>(status.st_size) : 0;
  }
  Status write(uint64_t offset, std::span<const uint8_t> bytes) const {
    size_t done = 0;
    while (done < bytes.size()) {
      const ssize_t n =
          ::pwrite(fd_, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return run_failure("{}: cannot write: {}", path_, std::strerror(errno));
      done += static_cast<size_t>(n);
    }
    return {};
  }
  bool read(uint64_t offset, std::span<uint8_t> bytes) const {
    return ::pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset)) ==
           static_cast<ssize_t>(bytes.size());
  }
  /// What was written is on the drive, and no longer in the page cache.
  Status sync() const {
    if (::fdatasync(fd_) != 0) return run_failure("{}: cannot write: {}", path_, std::strerror(errno));
    ::posix_fadvise(fd_, 0, 0, POSIX_FADV_DONTNEED);
    return {};
  }

 private:
  std::string path_;
  int fd_;
};

/// Takes over the records of an interrupted run that are there and right.
void take_over(const Output& out, ExpertPackDirectory& directory) {
  std::vector<uint8_t> head(directory.data_offset), record(directory.record_bytes);
  if (out.size() < directory.data_offset || !out.read(0, head)) return;
  const auto old = ExpertPackDirectory::parse(head);
  if (!old || old->fingerprint != directory.fingerprint || old->layer != directory.layer ||
      old->record_bytes != directory.record_bytes || old->experts != directory.experts) {
    return;
  }
  for (size_t i = 0; i < directory.checksums.size(); ++i) {
    const uint64_t used = directory.layer[i / directory.experts].used_bytes;
    if (old->checksums[i] == 0 || !out.read(directory.offset(static_cast<int64_t>(i)), record)) continue;
    if (XXH3_64bits(record.data(), used) == old->checksums[i]) directory.checksums[i] = old->checksums[i];
  }
}

Status check_space(const std::string& path, uint64_t needed) {
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  struct statvfs fs {};
  if (::statvfs(folder.c_str(), &fs) != 0) {
    return run_failure("{}: cannot examine the disk: {}", folder, std::strerror(errno));
  }
  const uint64_t free = static_cast<uint64_t>(fs.f_bavail) * fs.f_frsize;
  if (free < needed)
    return run_failure("{}: the pack needs {} bytes, the disk has {} left", path, needed, free);
  return {};
}

Status pack_record(Context& ctx, const GgufFile& file, const ExpertDeclaration& d,
                   const ExpertLayerLayout& layout, size_t layer, uint64_t expert,
                   std::vector<uint8_t>& source, uint8_t* record) {
  const ExpertLayer& tensors = d.layers[layer];
  size_t index = tensors.gate == nullptr ? 1 : 0;
  for (const ExpertPiece& piece : layout.pieces) {
    const GgufTensor* tensor[] = {tensors.gate, tensors.up, tensors.down};
    source.resize(piece.bytes);
    Status read = file.read(*tensor[index++], expert * piece.bytes, source);
    if (!read) return read;
    ctx.pool.parallel_for(piece_panels(piece), 8, [&](int64_t begin, int64_t end, int) {
      pack_piece_panels(piece, source.data(), begin, end - begin, record);
    });
  }
  return {};
}

std::string remake(const GgufFile& file, const std::string& path) {
  return fmt::format("remake it with: mete pack -m {} -o {} --force", file.paths()[0], path);
}

}  // namespace

Result<uint64_t> expert_fingerprint(const GgufFile& file, const ExpertDeclaration& d) {
  constexpr uint64_t kSample = 4096;
  std::vector<uint8_t> text;
  const auto add = [&text](uint64_t value) {
    const auto* bytes = reinterpret_cast<const uint8_t*>(&value);
    text.insert(text.end(), bytes, bytes + sizeof value);
  };
  add(file.file_bytes());
  for (const ExpertLayer& layer : d.layers) {
    for (const GgufTensor* t : {layer.gate, layer.up, layer.down}) {
      if (t == nullptr) continue;
      for (const uint64_t value :
           {static_cast<uint64_t>(t->type), static_cast<uint64_t>(t->part), t->offset, t->bytes}) {
        add(value);
      }
      const uint64_t bytes = std::min(kSample, t->bytes);
      const size_t at = text.size();
      text.resize(at + bytes);
      Status read = file.read(*t, (t->bytes - bytes) / 2, {text.data() + at, bytes});
      if (!read) return read.error();
    }
  }
  return static_cast<uint64_t>(XXH3_64bits(text.data(), text.size()));
}

Status pack_experts(Context& ctx, const GgufFile& file, const ExpertDeclaration& d, const std::string& path,
                    const PackOptions& options) {
  if (!options.force && ::access(path.c_str(), F_OK) == 0) {
    return bad_usage("{}: is there already; --force replaces it", path);
  }
  const ExpertLayout layout = make_expert_layout(d);
  auto fingerprint = expert_fingerprint(file, d);
  if (!fingerprint) return fingerprint.error();
  ExpertPackDirectory directory = make_directory(d, layout, *fingerprint);
  const std::string partial = path + ".partial";
  struct stat old {};
  const uint64_t there =
      ::stat(partial.c_str(), &old) == 0 ? static_cast<uint64_t>(old.st_blocks) * 512 : uint64_t{0};
  const uint64_t needed = directory.file_bytes() - std::min(directory.file_bytes(), there);
  if (Status space = check_space(path, needed); !space) return space;
  const Output out(partial);
  if (Status opened = out.opened(); !opened) return opened;
  take_over(out, directory);
  if (options.taken_over != nullptr) {
    *options.taken_over = std::ssize(directory.checksums) -
                          std::count(directory.checksums.begin(), directory.checksums.end(), uint64_t{0});
  }

  constexpr uint64_t kSyncBytes = uint64_t{256}
                                  << 20;  // written between two states that a run can go on from
  AlignedBuffer record(directory.record_bytes);
  std::vector<uint8_t> source;
  uint64_t unsynced = 0;
  int64_t written = 0;
  const auto total = static_cast<int64_t>(directory.checksums.size());
  const auto save = [&]() -> Status {
    Status status = out.sync();
    if (status) status = out.write(0, directory.serialise());
    unsynced = 0;
    return status;
  };
  for (int64_t i = 0; i < total; ++i) {
    if (options.progress != nullptr) options.progress(options.progress_user, i, total);
    uint64_t& sum = directory.checksums[static_cast<size_t>(i)];
    if (sum != 0) continue;
    if (written == options.stop_after) {
      Status saved = save();
      return saved ? run_failure("stopped") : saved;
    }
    const auto layer = static_cast<size_t>(i / d.experts);
    std::memset(record.data(), 0, record.bytes());
    Status status = pack_record(ctx, file, d, layout.layers[layer], layer,
                                static_cast<uint64_t>(i % d.experts), source, record.data());
    if (status) status = out.write(directory.offset(i), {record.data(), directory.record_bytes});
    if (!status) {
      (void)save();  // the next run goes on here; what went wrong is said already
      return status;
    }
    sum = XXH3_64bits(record.data(), directory.layer[layer].used_bytes);
    ++written;
    unsynced += directory.record_bytes;
    if (unsynced < kSyncBytes) continue;
    if (Status saved = save(); !saved) return saved;
  }
  if (Status saved = save(); !saved) return saved;
  if (Status synced = out.sync(); !synced) return synced;
  if (std::rename(partial.c_str(), path.c_str()) != 0) {
    return run_failure("{}: cannot rename to {}: {}", partial, path, std::strerror(errno));
  }
  return {};
}

Result<ExpertPackDirectory> open_expert_pack(const GgufFile& file, const ExpertDeclaration& d,
                                             const std::string& path) {
  auto source = ByteSource::open(path);
  if (!source) return source.error();
  const auto layers = static_cast<uint32_t>(d.layers.size()), experts = static_cast<uint32_t>(d.experts);
  std::vector<uint8_t> head(
      std::min((*source)->size(), ExpertPackDirectory::directory_bytes(layers, experts)));
  if (Status read = (*source)->read(0, head); !read) return read.error();
  auto directory = ExpertPackDirectory::parse(head);
  if (!directory) return bad_model("{}: {}; {}", path, directory.error().message(), remake(file, path));
  auto fingerprint = expert_fingerprint(file, d);
  if (!fingerprint) return fingerprint.error();
  const ExpertPackDirectory expected = make_directory(d, make_expert_layout(d), *fingerprint);
  if (directory->fingerprint != expected.fingerprint || directory->layers != expected.layers ||
      directory->experts != expected.experts || directory->d_model != expected.d_model ||
      directory->ffn != expected.ffn || directory->record_bytes != expected.record_bytes ||
      directory->layer != expected.layer) {
    return bad_model("{}: is the expert pack of another file than {}; {}", path, file.paths()[0],
                     remake(file, path));
  }
  for (size_t i = 0; i < directory->checksums.size(); ++i) {
    if (directory->checksums[i] != 0) continue;
    return bad_model("{}: expert {} of layer {} is missing; {}", path, i % experts, i / experts,
                     remake(file, path));
  }
  if ((*source)->size() < directory->file_bytes()) {
    return bad_model("{}: {} bytes, expected {}; {}", path, (*source)->size(), directory->file_bytes(),
                     remake(file, path));
  }
  return directory;
}

}  // namespace mete
