// Whether the measure tells a planted error from rounding: an error of 1 % in one weight matrix against 20
// runs in which every number of that matrix is moved by one unit in its last place.
#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>

#include "base/rng.h"
#include "eval/divergence.h"
#include "exactness/machine.h"
#include "testing/tiny_models.h"

namespace mete::testing {
namespace {

/// Where the float16 numbers of a tensor lie: weights of F16, scales (and minima) of a block type.
struct HalfPlaces {
  size_t begin, bytes, stride, per_block;
};

HalfPlaces half_places(const GgufFile& file, const std::string& name) {
  const GgufTensor* tensor = file.find(name);
  if (tensor == nullptr) throw bad_usage("no tensor {}", name);
  const auto begin = static_cast<size_t>(tensor->offset);
  if (tensor->type == DType::kF16) return {begin, tensor->bytes, 2, 1};
  if (tensor->type == DType::kQ8_0) return {begin, tensor->bytes, 34, 1};
  if (tensor->type == DType::kQ4_1) return {begin, tensor->bytes, 20, 2};
  throw bad_usage("{}: not a type of this test", name);
}

template <typename Change>
std::vector<uint8_t> changed(std::vector<uint8_t> raw, const HalfPlaces& places, Change change) {
  uint64_t counter = 0;
  for (size_t block = 0; block < places.bytes; block += places.stride) {
    for (size_t i = 0; i < places.per_block; ++i) {
      uint16_t bits;
      uint8_t* at = raw.data() + places.begin + block + 2 * i;
      std::memcpy(&bits, at, 2);
      bits = change(bits, counter++);
      std::memcpy(at, &bits, 2);
    }
  }
  return raw;
}

class PlantedError {
 public:
  PlantedError(std::vector<uint8_t> raw, std::string tensor, int64_t tokens)
      : raw_(std::move(raw)), tensor_(std::move(tensor)), tokens_(tokens) {
    baseline_ = logits(raw_);
  }
  /// Mean KL of the unchanged model against one with an error of 1 % in the matrix.
  double planted() const {
    return mean_kl([](uint16_t bits, uint64_t) { return to_half(to_float(Half{bits}) * 1.01f).bits; });
  }
  /// The same for numbers moved one unit up or down, by the seed.
  double one_ulp(uint64_t seed) const {
    return mean_kl([seed](uint16_t bits, uint64_t i) {
      const bool up = (random_bits(seed, i, Purpose::kTest) & 1) != 0;
      if ((bits & 0x7fff) == 0) return bits;
      return static_cast<uint16_t>(up ? bits + 1 : bits - 1);
    });
  }

 private:
  std::vector<float> logits(const std::vector<uint8_t>& raw) const {
    const GgufFile file = GgufFile::parse(raw).value();
    MachineConfig config;
    config.mode = NumericMode::kReference;
    Machine machine(file, config);
    return run_logits(machine, some_tokens(tokens_, machine.vocab()), 64);
  }
  template <typename Change>
  double mean_kl(Change change) const {
    const GgufFile file = GgufFile::parse(raw_).value();
    const std::vector<float> other = logits(changed(raw_, half_places(file, tensor_), change));
    const auto vocab = static_cast<int64_t>(baseline_.size()) / tokens_;
    double sum = 0;
    for (int64_t t = 0; t < tokens_; ++t) {
      const float *a = baseline_.data() + t * vocab, *b = other.data() + t * vocab;
      sum += compare_rows(a, b, log_sum_exp(b, vocab), vocab, 0).kl;
    }
    return sum / static_cast<double>(tokens_);
  }

  std::vector<uint8_t> raw_;
  std::string tensor_;
  int64_t tokens_;
  std::vector<float> baseline_;
};

/// One-sided 99 % prediction bound of one more run, from 20: Student's t with 19 degrees of freedom is 2.539.
double bound_of_20(const PlantedError& model) {
  double sum = 0, squares = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const double kl = model.one_ulp(seed);
    sum += kl;
    squares += kl * kl;
  }
  const double mean = sum / 20, variance = (squares - 20 * mean * mean) / 19;
  return mean + 2.539 * std::sqrt(variance * (1 + 1.0 / 20));
}

void expect_found(const PlantedError& model) {
  const double bound = bound_of_20(model), planted = model.planted(), another = model.one_ulp(1000);
  std::printf("one ulp: 99 %% bound %.4g, one more run %.4g; 1 %% error: %.4g\n", bound, another, planted);
  EXPECT_GT(bound, 0);
  EXPECT_GT(planted, bound);
  EXPECT_LT(another, bound);
}

TEST(PlantedErrorTest, TinyModelsOfTwoTypes) {
  for (const DType type : {DType::kF16, DType::kQ8_0}) {
    expect_found(PlantedError(named_tiny_model_gguf("llama", type), "blk.1.ffn_down.weight", 100));
  }
}

TEST(SlowPlantedErrorTest, SmolLM2) {
  const std::string path = model_path("SmolLM2-135M-Instruct.Q4_1.gguf");
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is absent";
  std::ifstream stream(path, std::ios::binary);
  std::vector<uint8_t> raw((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
  expect_found(PlantedError(std::move(raw), "blk.15.ffn_up.weight", 32));
}

}  // namespace
}  // namespace mete::testing
