// GBNF of the numbers between two bounds, in JSON's notation.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace mete {

struct NumberBounds {
  std::optional<int64_t> minimum, maximum, exclusive_minimum, exclusive_maximum;
  bool none() const { return !minimum && !maximum && !exclusive_minimum && !exclusive_maximum; }
};

/// Whole numbers; empty if there are none. Without a bound: up to 16 digits.
std::string integer_range_gbnf(const NumberBounds& bounds);
/// Numbers with up to 16 decimals, without exponent; empty if there are none.
std::string number_range_gbnf(const NumberBounds& bounds);

}  // namespace mete
