// The routing trace reader on arbitrary bytes.
#include <cstddef>
#include <cstdint>

#include "format/routing_trace.h"

using namespace mete;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto trace = RoutingTrace::parse({data, size});
  if (!trace) {
    METE_CHECK(trace.error().code() == Code::kBadModel);
    METE_CHECK(trace.error().message().find('\n') == std::string::npos);
    return 0;
  }
  METE_CHECK(trace->ids.size() == trace->weights.size() && trace->ids.size() * 6 <= size);
  for (const RoutingTrace::Record& r : trace->records) {
    METE_CHECK(r.layer >= 0 && r.layer < trace->layers && r.count >= 0);
  }
  for (const uint16_t id : trace->ids) METE_CHECK(id < trace->experts);
  return 0;
}
