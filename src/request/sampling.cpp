#include "request/sampling.h"

#include <cmath>

namespace mete {

Status SamplingParams::validate(int64_t vocab) const {
  const auto outside = [](const char* field, double found, const char* expected) {
    return bad_usage("{}: found {}, expected {}", field, found, expected);
  };
  const auto in = [](double x, double low, double high) { return x >= low && x <= high; };
  if (!std::isfinite(temperature)) return outside("temperature", temperature, "a finite number");
  if (!in(dynatemp_range, 0, 1e6)) return outside("dynatemp_range", dynatemp_range, "0 or more");
  if (!in(dynatemp_exponent, 0, 1e6)) return outside("dynatemp_exponent", dynatemp_exponent, "0 or more");
  if (!in(top_p, 0, 1)) return outside("top_p", top_p, "0 to 1");
  if (!in(min_p, 0, 1)) return outside("min_p", min_p, "0 to 1");
  if (!in(typical_p, 0, 1)) return outside("typical_p", typical_p, "0 to 1");
  if (!std::isfinite(top_n_sigma)) return outside("top_n_sigma", top_n_sigma, "a finite number");
  if (!in(xtc_probability, 0, 1)) return outside("xtc_probability", xtc_probability, "0 to 1");
  if (!in(xtc_threshold, 0, 1)) return outside("xtc_threshold", xtc_threshold, "0 to 1");
  if (min_keep < 0) return outside("min_keep", min_keep, "0 or more");
  if (penalty_last_n < -1) return outside("repeat_last_n", penalty_last_n, "-1 or more");
  if (!(repeat_penalty > 0) || !std::isfinite(repeat_penalty)) {
    return outside("repeat_penalty", repeat_penalty, "a finite number above 0");
  }
  if (!std::isfinite(presence_penalty))
    return outside("presence_penalty", presence_penalty, "a finite number");
  if (!std::isfinite(frequency_penalty))
    return outside("frequency_penalty", frequency_penalty, "a finite number");
  if (!in(dry_multiplier, 0, 1e6)) return outside("dry_multiplier", dry_multiplier, "0 or more");
  if (!in(dry_base, 0, 1e6)) return outside("dry_base", dry_base, "0 or more");
  if (dry_allowed_length < 0) return outside("dry_allowed_length", dry_allowed_length, "0 or more");
  if (dry_penalty_last_n < -1) return outside("dry_penalty_last_n", dry_penalty_last_n, "-1 or more");
  if (!in(mirostat, 0, 2)) return outside("mirostat", mirostat, "0, 1 or 2");
  if (!in(mirostat_tau, 0, 1e6)) return outside("mirostat_ent", mirostat_tau, "0 or more");
  if (!in(mirostat_eta, 0, 1e6)) return outside("mirostat_lr", mirostat_eta, "0 or more");
  for (const auto& [token, bias] : logit_bias) {
    if (token < 0 || token >= vocab) {
      return bad_usage("logit_bias: found token id {}, expected 0 to {}", token, vocab - 1);
    }
    if (std::isnan(bias)) return bad_usage("logit_bias of token {}: found nan, expected a number", token);
  }
  return {};
}

}  // namespace mete
