// A figure with its spread: what repeated measurements gave.
#pragma once

#include <vector>

namespace mete {

struct Spread {
  double median = 0, low = 0, high = 0;  ///< low, high: first and third quartile
  /// Half the distance of the quartiles over the median; 0 if there is no median.
  double relative() const { return median > 0 ? (high - low) / (2 * median) : 0; }
};

/// Median and quartiles by linear interpolation between order statistics; all 0 for no values.
Spread spread_of(std::vector<double> values);

}  // namespace mete
