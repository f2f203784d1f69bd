#include "format/prefix_file.h"

#include <fcntl.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <istream>

namespace mete {
namespace {

constexpr std::string_view kMagic = "METEKV02";

struct Field {
  const char* name;
  uint64_t value;
};

std::array<Field, 10> fields(const PrefixIdentity& i) {
  return {{{"model (first half of its hash)", i.model[0]},
           {"model (second half of its hash)", i.model[1]},
           {"numerics version", i.numerics},
           {"context", i.context},
           {"codec of keys", i.key_codec},
           {"codec of values", i.value_codec},
           {"tokens of a page", i.page_slots},
           {"KV bytes of a page of tokens", i.block_bytes},
           {"KV heads of all layers", i.lists},
           {"vocabulary", i.vocab}}};
}

template <typename T>
void put(std::vector<uint8_t>& bytes, T value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof(T));
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

template <typename T>
T get(const uint8_t*& from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  from += sizeof(T);
  return value;
}

size_t record_bytes(const PrefixIdentity& identity) {  // without its checksum
  return 4 * sizeof(uint64_t) + identity.page_slots * sizeof(int32_t) + identity.block_bytes;
}

bool read(std::istream& in, std::vector<uint8_t>& bytes, size_t count) {
  bytes.resize(count);
  in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(count));
  return in.gcount() == static_cast<std::streamsize>(count);
}

}  // namespace

struct PrefixFileWriter::State {
  std::string path, temporary;
  PrefixIdentity identity;
  std::FILE* file = nullptr;
  int64_t expected = 0, added = 0;
  std::vector<uint8_t> bytes;

  Status write() {
    if (std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size()) return {};
    return run_failure("{}: cannot be written: {}", temporary, std::strerror(errno));
  }
};

PrefixFileWriter::PrefixFileWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
PrefixFileWriter::PrefixFileWriter(PrefixFileWriter&&) noexcept = default;
PrefixFileWriter::~PrefixFileWriter() {
  if (!state_ || state_->file == nullptr) return;
  std::fclose(state_->file);
  std::remove(state_->temporary.c_str());
}

Result<PrefixFileWriter> PrefixFileWriter::create(const std::string& path, const PrefixIdentity& identity,
                                                  int64_t records) {
  auto state = std::make_unique<State>();
  state->path = path;
  state->temporary = path + ".tmp";
  state->identity = identity;
  state->expected = records;
  // What users said to the model is in the file: nobody else reads it.
  const int descriptor = ::open(state->temporary.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  state->file = descriptor < 0 ? nullptr : ::fdopen(descriptor, "wb");
  if (state->file == nullptr) {
    return run_failure("{}: cannot be written: {}", state->temporary, std::strerror(errno));
  }
  std::vector<uint8_t>& bytes = state->bytes;
  bytes.assign(kMagic.begin(), kMagic.end());
  for (const Field& field : fields(identity)) put(bytes, field.value);
  put(bytes, static_cast<uint64_t>(records));
  put(bytes, static_cast<uint64_t>(XXH3_64bits(bytes.data(), bytes.size())));
  if (Status wrote = state->write(); !wrote) return wrote.error();
  return PrefixFileWriter(std::move(state));
}

Status PrefixFileWriter::add(const PrefixRecord& record) {
  State& s = *state_;
  METE_CHECK(s.added < s.expected && record.parent < s.added && !record.tokens.empty());
  METE_CHECK(record.tokens.size() <= s.identity.page_slots && record.kv.size() == s.identity.block_bytes);
  s.bytes.clear();
  put(s.bytes, record.parent);
  put(s.bytes, record.salt);
  put(s.bytes, static_cast<uint64_t>(record.tokens.size()));
  put(s.bytes, static_cast<uint64_t>(record.whole ? 1 : 0));
  for (const int32_t token : record.tokens) put(s.bytes, token);
  s.bytes.resize(record_bytes(s.identity) - record.kv.size(), 0);
  s.bytes.insert(s.bytes.end(), record.kv.begin(), record.kv.end());
  put(s.bytes, static_cast<uint64_t>(
                   XXH3_64bits_withSeed(s.bytes.data(), s.bytes.size(), static_cast<uint64_t>(s.added))));
  ++s.added;
  return s.write();
}

Status PrefixFileWriter::finish() {
  State& s = *state_;
  METE_CHECK(s.added == s.expected);
  const bool flushed = std::fflush(s.file) == 0 && ::fsync(::fileno(s.file)) == 0;
  const bool closed = std::fclose(s.file) == 0;
  s.file = nullptr;
  if (!flushed || !closed || std::rename(s.temporary.c_str(), s.path.c_str()) != 0) {
    const Error error = run_failure("{}: cannot be written: {}", s.path, std::strerror(errno));
    std::remove(s.temporary.c_str());
    return error;
  }
  return {};
}

Result<PrefixFileReader> PrefixFileReader::open(std::istream& in, std::string name,
                                                const PrefixIdentity& expected) {
  const auto wanted = fields(expected);
  const size_t head = kMagic.size() + (wanted.size() + 1) * sizeof(uint64_t);
  std::vector<uint8_t> bytes;
  if (!read(in, bytes, head + sizeof(uint64_t)) ||
      std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    return run_failure("{}: not a prefix cache file (\"{}\" expected at its beginning)", name, kMagic);
  }
  const uint8_t* from = bytes.data() + head;
  if (get<uint64_t>(from) != XXH3_64bits(bytes.data(), head)) {
    return run_failure("{}: damaged: the checksum of its head is wrong", name);
  }
  from = bytes.data() + kMagic.size();
  for (const Field& field : wanted) {
    const auto found = get<uint64_t>(from);
    if (found == field.value) continue;
    return run_failure("{}: made for another {}: found {}, expected {}", name, field.name, found,
                       field.value);
  }
  const auto records = get<uint64_t>(from);
  if (records > uint64_t{1} << 40) return run_failure("{}: {} records, expected at most 2^40", name, records);
  return PrefixFileReader(in, std::move(name), expected, static_cast<int64_t>(records));
}

Result<const PrefixRecord*> PrefixFileReader::next() {
  const auto index = static_cast<int64_t>(seen_.size());
  if (index == records_) {
    if (in_->peek() != std::istream::traits_type::eof()) {
      return run_failure("{}: damaged: bytes follow the last of {} records", name_, records_);
    }
    return nullptr;
  }
  const size_t size = record_bytes(identity_);
  if (!read(*in_, bytes_, size + sizeof(uint64_t))) {
    return run_failure("{}: damaged: it ends in record {} of {}", name_, index, records_);
  }
  const uint8_t* from = bytes_.data() + size;
  if (get<uint64_t>(from) != XXH3_64bits_withSeed(bytes_.data(), size, static_cast<uint64_t>(index))) {
    return run_failure("{}: damaged: the checksum of record {} is wrong", name_, index);
  }
  from = bytes_.data();
  record_.parent = get<int64_t>(from);
  record_.salt = get<uint64_t>(from);
  const auto count = get<uint64_t>(from);
  if (count < 1 || count > identity_.page_slots) {
    return run_failure("{}: record {} has {} tokens, expected 1 to {}", name_, index, count,
                       identity_.page_slots);
  }
  const auto whole = get<uint64_t>(from);
  if (whole > 1) return run_failure("{}: record {} is whole: {}, expected 0 or 1", name_, index, whole);
  record_.whole = whole == 1;
  if (record_.parent < -1 || record_.parent >= index) {
    return run_failure("{}: record {} follows record {}, expected -1 to {}", name_, index, record_.parent,
                       index - 1);
  }
  if (record_.parent >= 0) {
    const Seen& above = seen_[static_cast<size_t>(record_.parent)];
    if (!above.whole || above.salt != record_.salt) {
      return run_failure("{}: record {} cannot follow record {}: {}", name_, index, record_.parent,
                         above.whole ? "another salt" : "not a whole page");
    }
  }
  record_.tokens.resize(count);
  for (int32_t& token : record_.tokens) {
    token = get<int32_t>(from);
    if (token < 0 || static_cast<uint64_t>(token) >= identity_.vocab) {
      return run_failure("{}: record {} has token id {}, expected 0..{}", name_, index, token,
                         identity_.vocab - 1);
    }
  }
  record_.kv.assign(bytes_.data() + size - identity_.block_bytes, bytes_.data() + size);
  seen_.push_back({record_.salt, count == identity_.page_slots});
  return &record_;
}

}  // namespace mete
