// Curves as SVG: one chart, lines with names beside them.
#pragma once

#include <string>
#include <vector>

namespace mete {

struct Curve {
  std::string name;
  std::vector<double> x, y;  ///< y in [0, 1]
};

std::string svg_curves(const std::string& title, const std::string& x_label, const std::string& y_label,
                       const std::vector<Curve>& curves);

}  // namespace mete
