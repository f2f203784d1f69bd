#include "engine/decode_limit.h"

#include "format/machine_profile.h"

namespace mete {

double decode_limit(const Runtime& runtime) {
  const Result<MachineProfile> profile = load_profile(profile_path());
  if (!profile) return 0;
  const ThreadPoint* point = profile->with_threads(runtime.threads());
  const auto bytes = static_cast<double>(runtime.model_config().bytes_per_token);
  return point != nullptr && bytes > 0 ? point->read_bytes_per_s.median / bytes : 0;
}

}  // namespace mete
