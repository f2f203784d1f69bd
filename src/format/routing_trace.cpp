#include "format/routing_trace.h"

#include <cerrno>
#include <cstring>

namespace mete {
namespace {

constexpr char kMagic[8] = {'M', 'E', 'T', 'E', 'T', 'R', 'A', 'C'};
constexpr size_t kHeadBytes = 32;

class Reader {
 public:
  explicit Reader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  size_t left() const { return bytes_.size() - at_; }
  template <typename T>
  T get() {  // the caller has checked left()
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

 private:
  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
};

/// One record into `t`; an Error without the record's number.
Status read_record(Reader& r, RoutingTrace& t) {
  using Kind = RoutingTrace::Kind;
  const auto kind = r.get<uint32_t>();
  if (kind < 1 || kind > 4) return bad_model("kind {}, expected 1 to 4", kind);
  RoutingTrace::Record record;
  record.kind = static_cast<Kind>(kind);
  if (record.kind == Kind::kSequence) {
    t.records.push_back(record);
    return {};
  }
  if (r.left() < 8) return bad_model("cut off");
  const auto layer = r.get<uint32_t>(), count = r.get<uint32_t>();
  if (layer >= static_cast<uint32_t>(t.layers)) return bad_model("layer {} of {}", layer, t.layers);
  const size_t entry = record.kind == Kind::kVisit ? static_cast<size_t>(t.used) * 6 : 8;
  if (count > r.left() / entry) return bad_model("{} entries, but {} bytes are left", count, r.left());
  record.layer = static_cast<int32_t>(layer);
  record.count = static_cast<int32_t>(count);
  const auto check = [&t](uint16_t expert) { return expert < t.experts; };
  if (record.kind == Kind::kVisit) {
    record.first = t.ids.size();
    const size_t n = static_cast<size_t>(count) * static_cast<size_t>(t.used);
    for (size_t i = 0; i < n; ++i) {
      t.ids.push_back(r.get<uint16_t>());
      if (!check(t.ids.back())) return bad_model("expert {} of {}", t.ids.back(), t.experts);
    }
    for (size_t i = 0; i < n; ++i) t.weights.push_back(r.get<float>());
  } else if (record.kind == Kind::kHint) {
    record.first = t.hints.size();
    for (uint32_t i = 0; i < count; ++i) {
      const auto expert = r.get<uint16_t>();
      r.get<uint16_t>();
      t.hints.push_back({expert, r.get<int32_t>()});
      if (!check(expert)) return bad_model("expert {} of {}", expert, t.experts);
    }
  } else {
    record.first = t.served.size();
    for (uint32_t i = 0; i < count; ++i) {
      const auto expert = r.get<uint16_t>();
      const bool hit = r.get<uint16_t>() != 0;
      const auto after = r.get<int32_t>();
      if (!check(expert)) return bad_model("expert {} of {}", expert, t.experts);
      if (after < -1 || after >= static_cast<int32_t>(i))
        return bad_model("entry {} comes after entry {}", i, after);
      t.served.push_back({expert, hit, after});
    }
  }
  t.records.push_back(record);
  return {};
}

}  // namespace

Result<RoutingTrace> RoutingTrace::parse(std::span<const uint8_t> bytes) {
  if (bytes.size() < kHeadBytes || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    return bad_model("no METETRAC at the start: not a routing trace");
  }
  Reader r(bytes.subspan(sizeof kMagic));
  const auto version = r.get<uint32_t>();
  if (version != kVersion) return bad_model("trace version is {}, expected {}", version, kVersion);
  const auto layers = r.get<uint32_t>(), experts = r.get<uint32_t>(), used = r.get<uint32_t>();
  const auto expert_bytes = r.get<uint64_t>();
  if (layers == 0 || layers > 4096 || experts == 0 || experts > 65535 || used == 0 || used > experts ||
      expert_bytes > uint64_t{1} << 40) {
    return bad_model("trace of {} layers, {} experts of {} bytes, {} used: not possible", layers, experts,
                     expert_bytes, used);
  }
  RoutingTrace trace;
  trace.layers = static_cast<int32_t>(layers);
  trace.experts = static_cast<int32_t>(experts);
  trace.used = static_cast<int32_t>(used);
  trace.expert_bytes = static_cast<int64_t>(expert_bytes);
  while (r.left() > 0) {
    if (r.left() < 4) return bad_model("record {}: cut off", trace.records.size());
    const size_t number = trace.records.size();
    if (Status read = read_record(r, trace); !read) {
      return bad_model("record {}: {}", number, read.error().message());
    }
  }
  return trace;
}

RoutingTraceWriter::RoutingTraceWriter(const std::string& path, int32_t layers, int32_t experts, int32_t used,
                                       int64_t expert_bytes)
    : path_(path), file_(std::fopen(path.c_str(), "wb")) {
  if (file_ == nullptr) throw run_failure("{}: cannot write: {}", path, std::strerror(errno));
  for (const char c : kMagic) put(c);
  for (const int32_t value : {static_cast<int32_t>(RoutingTrace::kVersion), layers, experts, used})
    put(value);
  put(expert_bytes);
}

template <typename T>
void RoutingTraceWriter::put(T value) {
  if (std::fwrite(&value, sizeof value, 1, file_.get()) != 1) failed_ = true;
}

void RoutingTraceWriter::sequence() { put(static_cast<uint32_t>(RoutingTrace::Kind::kSequence)); }

void RoutingTraceWriter::visit(int layer, int64_t rows, int64_t used, const int32_t* ids,
                               const float* weights) {
  put(static_cast<uint32_t>(RoutingTrace::Kind::kVisit));
  put(static_cast<uint32_t>(layer));
  put(static_cast<uint32_t>(rows));
  for (int64_t i = 0; i < rows * used; ++i) put(static_cast<uint16_t>(ids[i]));
  for (int64_t i = 0; i < rows * used; ++i) put(weights[i]);
}

void RoutingTraceWriter::hint(int layer, std::span<const RoutingTrace::Hint> hints) {
  put(static_cast<uint32_t>(RoutingTrace::Kind::kHint));
  put(static_cast<uint32_t>(layer));
  put(static_cast<uint32_t>(hints.size()));
  for (const RoutingTrace::Hint& h : hints) {
    put(static_cast<uint16_t>(h.expert));
    put(uint16_t{0});
    put(h.rows);
  }
}

void RoutingTraceWriter::served(int layer, std::span<const RoutingTrace::Served> order) {
  put(static_cast<uint32_t>(RoutingTrace::Kind::kServed));
  put(static_cast<uint32_t>(layer));
  put(static_cast<uint32_t>(order.size()));
  for (const RoutingTrace::Served& s : order) {
    put(static_cast<uint16_t>(s.expert));
    put(static_cast<uint16_t>(s.hit ? 1 : 0));
    put(s.after);
  }
}

void RoutingTraceWriter::close() {
  if (std::fflush(file_.get()) != 0) failed_ = true;
  if (failed_) throw run_failure("{}: cannot write: {}", path_, std::strerror(errno));
}

}  // namespace mete
