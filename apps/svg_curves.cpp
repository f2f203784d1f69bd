#include "apps/svg_curves.h"

#include <fmt/format.h>

#include <algorithm>

namespace mete {
namespace {

constexpr double kLeft = 60, kTop = 40, kWidth = 560, kHeight = 380;
constexpr const char* kColours[] = {"#888888", "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728",
                                    "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22"};

std::string text(double x, double y, const char* anchor, const std::string& what) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor, what);
}

}  // namespace

std::string svg_curves(const std::string& title, const std::string& x_label, const std::string& y_label,
                       const std::vector<Curve>& curves) {
  double most = 1;
  for (const Curve& c : curves) {
    for (const double x : c.x) most = std::max(most, x);
  }
  const auto px = [&](double x) { return kLeft + x / most * kWidth; };
  const auto py = [&](double y) { return kTop + (1 - y) * kHeight; };
  std::string out =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"800\" height=\"470\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n<rect width=\"800\" height=\"470\" fill=\"white\"/>\n";
  out += text(kLeft, 20, "start", title) + text(kLeft + kWidth / 2, kTop + kHeight + 36, "middle", x_label) +
         text(8, kTop - 8, "start", y_label);
  for (int i = 0; i <= 5; ++i) {
    const double y = i / 5.0, x = most * i / 5;
    out +=
        fmt::format("<path d=\"M{:.1f} {:.1f}H{:.1f}\" stroke=\"#dddddd\"/>\n", kLeft, py(y), kLeft + kWidth);
    out += text(kLeft - 6, py(y) + 4, "end", fmt::format("{:.1f}", y)) +
           text(px(x), kTop + kHeight + 16, "middle", fmt::format("{:.0f}", x));
  }
  size_t number = 0;
  for (const Curve& c : curves) {
    const char* colour = kColours[number % std::size(kColours)];
    std::string points;
    for (size_t i = 0; i < c.x.size(); ++i) points += fmt::format("{:.1f},{:.1f} ", px(c.x[i]), py(c.y[i]));
    out += fmt::format("<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"1.5\"/>\n", points,
                       colour);
    const double y = kTop + 16 * static_cast<double>(++number);
    out += fmt::format("<path d=\"M{:.0f} {:.1f}h20\" stroke=\"{}\" stroke-width=\"2\"/>\n",
                       kLeft + kWidth + 12, y, colour);
    out += text(kLeft + kWidth + 38, y + 4, "start", c.name);
  }
  return out + "</svg>\n";
}

}  // namespace mete
