// Where the tests look for real models.
#pragma once

#include <cstdlib>
#include <string>

namespace mete::testing {

/// METE_MODEL_DIR, or the cache that tools/fetch_model.sh fills; the file need not exist.
inline std::string model_path(const std::string& file) {
  const char* set = std::getenv("METE_MODEL_DIR");
  const char* home = std::getenv("HOME");
  const std::string folder =
      set != nullptr ? set : std::string(home != nullptr ? home : ".") + "/.cache/mete/models";
  return folder + "/" + file;
}

}  // namespace mete::testing
