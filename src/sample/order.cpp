#include "sample/order.h"

#include <algorithm>
#include <string>

namespace mete {

namespace {

struct Name {
  SamplerStage stage;
  std::string_view name;
  char letter;
};
constexpr Name kNames[] = {{SamplerStage::kPenalties, "penalties", 'e'},
                           {SamplerStage::kDry, "dry", 'd'},
                           {SamplerStage::kTopNSigma, "top_n_sigma", 's'},
                           {SamplerStage::kTopK, "top_k", 'k'},
                           {SamplerStage::kTypicalP, "typ_p", 'y'},
                           {SamplerStage::kTopP, "top_p", 'p'},
                           {SamplerStage::kMinP, "min_p", 'm'},
                           {SamplerStage::kXtc, "xtc", 'x'},
                           {SamplerStage::kTemperature, "temperature", 't'}};
constexpr std::string_view kExpected =
    "penalties, dry, top_n_sigma, top_k, typ_p, top_p, min_p, xtc, temperature";

/// Lower case without '_' and '-'.
std::string plain(std::string_view name) {
  std::string out;
  for (const char c : name) {
    if (c == '_' || c == '-') continue;
    out.push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c);
  }
  return out;
}

Status add(std::vector<SamplerStage>* order, SamplerStage stage) {
  if (std::find(order->begin(), order->end(), stage) != order->end()) {
    return bad_usage("--samplers: found '{}' twice, expected each stage once", sampler_stage_name(stage));
  }
  order->push_back(stage);
  return {};
}

}  // namespace

std::string_view sampler_stage_name(SamplerStage stage) {
  for (const Name& name : kNames) {
    if (name.stage == stage) return name.name;
  }
  return "?";
}

Result<std::vector<SamplerStage>> parse_sampler_order(std::string_view names) {
  std::vector<SamplerStage> order;
  while (!names.empty()) {
    const std::string_view found = names.substr(0, names.find(';'));
    names.remove_prefix(std::min(names.size(), found.size() + 1));
    std::string wanted = plain(found);
    if (wanted == "nucleus") wanted = "topp";
    if (wanted == "temp") wanted = "temperature";
    if (wanted == "typ" || wanted == "typicalp") wanted = "typp";
    const Name* hit = std::find_if(std::begin(kNames), std::end(kNames),
                                   [&](const Name& name) { return plain(name.name) == wanted; });
    if (hit == std::end(kNames))
      return bad_usage("--samplers: found '{}', expected names of {}", found, kExpected);
    if (const Status status = add(&order, hit->stage); !status) return status.error();
  }
  return order;
}

Result<std::vector<SamplerStage>> parse_sampler_letters(std::string_view letters) {
  std::vector<SamplerStage> order;
  for (const char letter : letters) {
    const Name* hit = std::find_if(std::begin(kNames), std::end(kNames),
                                   [&](const Name& name) { return name.letter == letter; });
    if (hit == std::end(kNames))
      return bad_usage("--sampler-seq: found '{}', expected letters of edskypmxt", letter);
    if (const Status status = add(&order, hit->stage); !status) return status.error();
  }
  return order;
}

std::vector<SamplerStage> temperature_first_order() {
  return {SamplerStage::kPenalties, SamplerStage::kDry,      SamplerStage::kTemperature,
          SamplerStage::kTopNSigma, SamplerStage::kMinP,     SamplerStage::kTopK,
          SamplerStage::kTopP,      SamplerStage::kTypicalP, SamplerStage::kXtc};
}

}  // namespace mete
