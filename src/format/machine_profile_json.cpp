// The machine profile as JSON.
#include <nlohmann/json.hpp>

#include "format/machine_profile.h"

namespace mete {
namespace {

using Json = nlohmann::ordered_json;

Json spread(const Spread& s) { return {{"median", s.median}, {"low", s.low}, {"high", s.high}}; }
Spread spread(const Json& j) {
  return {j.at("median").get<double>(), j.at("low").get<double>(), j.at("high").get<double>()};
}

template <typename T, typename Each>
Json list(const std::vector<T>& values, Each each) {
  Json array = Json::array();
  for (const T& value : values) array.push_back(each(value));
  return array;
}
template <typename T, typename Each>
std::vector<T> list(const Json& array, Each each) {
  std::vector<T> values;
  for (const Json& item : array) values.push_back(each(item));
  return values;
}

MachineProfile parse(const Json& j) {
  MachineProfile p;
  j.at("host").get_to(p.host);
  j.at("cpu").get_to(p.cpu);
  j.at("cpus").get_to(p.cpus);
  j.at("kernel").get_to(p.kernel);
  j.at("measured_at").get_to(p.measured_at);
  j.at("took_s").get_to(p.took_s);
  p.threads = list<ThreadPoint>(j.at("threads"), [](const Json& t) {
    return ThreadPoint{t.at("threads").get<int>(), spread(t.at("read_bytes_per_s")),
                       spread(t.at("fork_join_s"))};
  });
  p.peaks = list<PeakPoint>(j.at("peaks"), [](const Json& t) {
    return PeakPoint{t.at("tier").get<std::string>(), t.at("kind").get<std::string>(),
                     t.at("unit").get<std::string>(), t.at("threads").get<int>(), spread(t.at("ops_per_s"))};
  });
  j.at("pair_ratio").get_to(p.pair_ratio);
  j.at("threads_per_core").get_to(p.threads_per_core);
  p.caches = list<CacheLevel>(j.at("caches"), [](const Json& t) {
    return CacheLevel{t.at("level").get<int>(), t.at("bytes").get<int64_t>(),
                      t.at("source").get<std::string>() == "measured"};
  });
  p.latencies = list<LatencyPoint>(j.at("latencies"), [](const Json& t) {
    return LatencyPoint{t.at("bytes").get<int64_t>(), t.at("ns").get<double>()};
  });
  j.at("drive_file").get_to(p.drive_file);
  j.at("drive_bytes").get_to(p.drive_bytes);
  j.at("drive_problem").get_to(p.drive_problem);
  p.drive = list<DriveRate>(j.at("drive"), [](const Json& t) {
    return DriveRate{{t.at("direct").get<bool>(), t.at("random").get<bool>(), t.at("block").get<int64_t>(),
                      t.at("depth").get<int>()},
                     spread(t.at("bytes_per_s"))};
  });
  p.power = list<PowerSource>(j.at("power"), [](const Json& t) {
    return PowerSource{t.at("name").get<std::string>(), t.at("reason").get<std::string>()};
  });
  p.repeats = list<Repeat>(j.at("repeats"), [](const Json& t) {
    return Repeat{t.at("what").get<std::string>(), t.at("first").get<double>(), t.at("second").get<double>()};
  });
  return p;
}

}  // namespace

Json to_json(const MachineProfile& p) {
  Json j;
  j["host"] = p.host;
  j["cpu"] = p.cpu;
  j["cpus"] = p.cpus;
  j["kernel"] = p.kernel;
  j["measured_at"] = p.measured_at;
  j["took_s"] = p.took_s;
  j["threads"] = list(p.threads, [](const ThreadPoint& t) {
    return Json{{"threads", t.threads},
                {"read_bytes_per_s", spread(t.read_bytes_per_s)},
                {"fork_join_s", spread(t.fork_join_s)}};
  });
  j["peaks"] = list(p.peaks, [](const PeakPoint& t) {
    return Json{{"tier", t.tier},
                {"kind", t.kind},
                {"unit", t.unit},
                {"threads", t.threads},
                {"ops_per_s", spread(t.ops_per_s)}};
  });
  j["pair_ratio"] = p.pair_ratio;
  j["threads_per_core"] = p.threads_per_core;
  j["caches"] = list(p.caches, [](const CacheLevel& c) {
    return Json{{"level", c.level}, {"bytes", c.bytes}, {"source", c.measured ? "measured" : "reported"}};
  });
  j["latencies"] = list(p.latencies, [](const LatencyPoint& l) {
    return Json{{"bytes", l.bytes}, {"ns", l.ns}};
  });
  j["drive_file"] = p.drive_file;
  j["drive_bytes"] = p.drive_bytes;
  j["drive_problem"] = p.drive_problem;
  j["drive"] = list(p.drive, [](const DriveRate& d) {
    return Json{{"direct", d.pattern.direct},
                {"random", d.pattern.random},
                {"block", d.pattern.block},
                {"depth", d.pattern.depth},
                {"bytes_per_s", spread(d.bytes_per_s)}};
  });
  j["power"] = list(p.power, [](const PowerSource& s) {
    return Json{{"name", s.name}, {"reason", s.reason}};
  });
  j["repeats"] = list(p.repeats, [](const Repeat& r) {
    return Json{{"what", r.what}, {"first", r.first}, {"second", r.second}};
  });
  return j;
}

Result<MachineProfile> profile_from_json(const std::string& text) {
  const Json j = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!j.is_object()) return run_failure("no machine profile: not a JSON object");
  try {
    return parse(j);
  } catch (const nlohmann::json::exception& error) {
    return run_failure("no machine profile: {}", error.what());
  }
}

}  // namespace mete
