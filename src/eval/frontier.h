// Which settings are worth having: the price of each in bytes, speed and quality, and who is beaten by whom.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mete {

/// One setting's place. Lower is better for bytes and loss, higher for rate and scores.
struct Price {
  std::string name;
  double bytes = 0;
  double rate = 0;         ///< decoded tokens/s; 0: not measured
  double rate_spread = 0;  ///< relative: (largest - smallest) / median of the repetitions
  double loss = 0;         ///< mean KL in nats, or perplexity without a reference
  struct Score {
    double share, error;  ///< 0 .. 1, and its standard error
  };
  std::vector<Score> scores;  ///< of the tasks, in the same order for all
  int dominated_by = -1;      ///< index of a setting that is nowhere worse and somewhere better; -1: none
};

/// Fills `dominated_by`. Rates count as equal if they differ by no more than the spread of both and 3 %: a
/// faster run on a noisy machine decides nothing.
void mark_dominated(std::vector<Price>& prices);

/// Loss over bytes in text, `width` x `height` characters without the axes: a letter per setting in the order
/// of `prices`, upper case on the frontier, lower case if dominated; '+' where several fall on one place.
std::string plot_text(const std::vector<Price>& prices, const std::string& loss_name, int width = 64,
                      int height = 16);

/// The same as an SVG document of its own.
std::string plot_svg(const std::vector<Price>& prices, const std::string& loss_name);

}  // namespace mete
