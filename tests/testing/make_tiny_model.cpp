// Writes one of the tiny golden models as a GGUF file: make_tiny_model NAME FILE.
#include <cstdio>

#include "testing/tiny_models.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const std::vector<uint8_t> bytes = mete::testing::named_tiny_model_gguf(argv[1], mete::DType::kQ8_0);
  std::FILE* file = std::fopen(argv[2], "wb");
  if (file == nullptr) return 1;
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size();
  return std::fclose(file) == 0 && written ? 0 : 1;
}
