#include "base/text_file.h"

#include <fstream>
#include <iterator>

#include "base/error.h"

namespace mete {

std::string read_text_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw run_failure("{}: cannot be opened", path);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) throw run_failure("{}: cannot be read", path);
  return text;
}

}  // namespace mete
