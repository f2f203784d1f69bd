#include "format/expert_pack.h"

#include <xxhash.h>

#include <cstring>

namespace mete {
namespace {

constexpr char kMagic[8] = {'M', 'E', 'T', 'E', 'P', 'A', 'C', 'K'};
constexpr uint64_t kHeadBytes = 64, kLayerBytes = 24, kPage = 4096;
constexpr uint32_t kMaxLayers = 4096, kMaxExperts = 65536, kMaxRecords = 1 << 20;

uint64_t used_bytes(uint64_t layers, uint64_t experts) {
  return kHeadBytes + layers * kLayerBytes + layers * experts * 8 + 8;
}

class Writer {
 public:
  explicit Writer(std::vector<uint8_t>& out) : out_(out) {}
  template <typename T>
  void put(T value) {
    std::memcpy(out_.data() + at, &value, sizeof value);
    at += sizeof value;
  }
  size_t at = 0;

 private:
  std::vector<uint8_t>& out_;
};

class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  template <typename T>
  T get() {  // the caller has checked the length
    T value;
    std::memcpy(&value, bytes_.data() + at, sizeof value);
    at += sizeof value;
    return value;
  }
  size_t at = 0;

 private:
  std::span<const uint8_t> bytes_;
};

}  // namespace

uint64_t ExpertPackDirectory::directory_bytes(uint32_t layers, uint32_t experts) {
  return (used_bytes(layers, experts) + kPage - 1) / kPage * kPage;
}

std::vector<uint8_t> ExpertPackDirectory::serialise() const {
  std::vector<uint8_t> out(data_offset);
  Writer w(out);
  std::memcpy(out.data(), kMagic, sizeof kMagic);
  w.at = sizeof kMagic;
  for (const uint32_t value : {kVersion, layers, experts, uint32_t{0}}) w.put(value);
  for (const uint64_t value : {d_model, ffn, fingerprint, record_bytes, data_offset}) w.put(value);
  for (const Layer& l : layer) {
    for (const DType type : {l.gate, l.up, l.down}) w.put(static_cast<uint32_t>(type));
    w.put(uint32_t{0});
    w.put(l.used_bytes);
  }
  for (const uint64_t sum : checksums) w.put(sum);
  w.put(static_cast<uint64_t>(XXH3_64bits(out.data(), w.at)));
  return out;
}

Result<ExpertPackDirectory> ExpertPackDirectory::parse(std::span<const uint8_t> bytes) {
  if (bytes.size() < kHeadBytes || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    return bad_model("no METEPACK at the start: not an expert pack");
  }
  Reader r(bytes);
  r.at = sizeof kMagic;
  const auto version = r.get<uint32_t>();
  if (version != kVersion) return bad_model("expert pack version is {}, expected {}", version, kVersion);
  ExpertPackDirectory d;
  d.layers = r.get<uint32_t>();
  d.experts = r.get<uint32_t>();
  r.get<uint32_t>();
  if (d.layers == 0 || d.layers > kMaxLayers || d.experts == 0 || d.experts > kMaxExperts ||
      d.layers * d.experts > kMaxRecords) {
    return bad_model("expert pack has {} layers of {} experts, expected up to {} of {}, {} in all", d.layers,
                     d.experts, kMaxLayers, kMaxExperts, kMaxRecords);
  }
  for (uint64_t* value : {&d.d_model, &d.ffn, &d.fingerprint, &d.record_bytes, &d.data_offset}) {
    *value = r.get<uint64_t>();
  }
  const uint64_t used = used_bytes(d.layers, d.experts);
  if (bytes.size() < used) {
    return bad_model("expert pack's directory ends at byte {}, expected {} bytes", bytes.size(), used);
  }
  uint64_t sum;
  std::memcpy(&sum, bytes.data() + used - 8, 8);
  if (sum != XXH3_64bits(bytes.data(), used - 8))
    return bad_model("expert pack's directory has a wrong checksum");
  if (d.data_offset != directory_bytes(d.layers, d.experts) || d.record_bytes % kPage != 0 ||
      d.record_bytes == 0 || d.record_bytes > uint64_t{1} << 34) {
    return bad_model("expert pack has records of {} bytes from byte {} on, expected whole pages",
                     d.record_bytes, d.data_offset);
  }
  for (uint32_t i = 0; i < d.layers; ++i) {
    int32_t ids[3];
    for (int32_t& id : ids) id = r.get<int32_t>();
    r.get<uint32_t>();
    const auto record = r.get<uint64_t>();
    for (const int32_t id : ids) {
      if (find_dtype(id) == nullptr) return bad_model("expert pack: layer {} has unknown type id {}", i, id);
    }
    if (record > d.record_bytes) {
      return bad_model("expert pack: layer {} uses {} bytes of records of {}", i, record, d.record_bytes);
    }
    d.layer.push_back(
        {static_cast<DType>(ids[0]), static_cast<DType>(ids[1]), static_cast<DType>(ids[2]), record});
  }
  for (uint64_t i = 0; i < uint64_t{d.layers} * d.experts; ++i) d.checksums.push_back(r.get<uint64_t>());
  return d;
}

}  // namespace mete
