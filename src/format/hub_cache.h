// Finds model files in an existing Hugging Face hub cache. Never downloads, never writes.
#pragma once

#include <string>

#include "base/error.h"

namespace mete {

/// An existing path: itself. "org/name" or "org/name:which": a GGUF file of that repository's snapshot in the
/// cache ($HF_HUB_CACHE, else $HF_HOME/hub, else huggingface/hub in $XDG_CACHE_HOME or ~/.cache). `which` is
/// a file name in the snapshot, or a part of one such as "Q4_K_M" (letter case ignored); without it the
/// snapshot must hold one model. Of a split model the first part counts. Nothing found: Code::kRuntime naming
/// where it looked; more than one found: Code::kUsage naming them.
Result<std::string> resolve_model_path(const std::string& argument);

}  // namespace mete
