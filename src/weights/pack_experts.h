// Expert packs: making one, and opening one for a model (format/expert_pack.h).
#pragma once

#include <string>

#include "format/expert_pack.h"
#include "ops/context.h"
#include "weights/experts.h"

namespace mete {

/// Identifies a model file by its size, the places and types of the experts' tensors, and samples of their
/// bytes.
Result<uint64_t> expert_fingerprint(const GgufFile& file, const ExpertDeclaration& declaration);

struct PackOptions {
  bool force = false;                                                   ///< replace a finished pack
  void (*progress)(void* user, int64_t done, int64_t total) = nullptr;  ///< records
  void* progress_user = nullptr;
  int64_t* taken_over = nullptr;  ///< set to the number of an interrupted run's records that are kept
  int64_t stop_after = -1;        ///< for tests: end as if interrupted after this many records
};

/// Writes the pack of `file` to `path`, by way of `path`.partial: an interrupted run goes on where it was,
/// after the records that are there have been checked. Error: kUsage if `path` is there already, kRuntime if
/// the disk has too little space (before anything is written) or writing fails.
Status pack_experts(Context& ctx, const GgufFile& file, const ExpertDeclaration& declaration,
                    const std::string& path, const PackOptions& options);

/// Reads and checks the directory of a pack for this model. Error(kBadModel) naming the pack, what is wrong
/// and the command that remakes it.
Result<ExpertPackDirectory> open_expert_pack(const GgufFile& file, const ExpertDeclaration& declaration,
                                             const std::string& path);

}  // namespace mete
