#include "base/error.h"

#include <cstdio>
#include <cstdlib>

namespace mete {

void check_failed(const char* file, int line, const char* expression) {
  std::fprintf(stderr, "mete: internal error: %s:%d: %s\n", file, line, expression);
  std::abort();
}

}  // namespace mete
