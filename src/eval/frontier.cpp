#include "eval/frontier.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace mete {
namespace {

constexpr double kRateNoise = 0.03;

/// -1: a is worse, 0: equal within the noise, 1: better.
int compare_rates(const Price& a, const Price& b) {
  const double noise = kRateNoise + a.rate_spread + b.rate_spread;
  if (a.rate > b.rate * (1 + noise)) return 1;
  return b.rate > a.rate * (1 + noise) ? -1 : 0;
}

bool dominates(const Price& a, const Price& b) {
  const int rates = compare_rates(a, b);
  if (a.bytes > b.bytes || a.loss > b.loss || rates < 0) return false;
  bool better = a.bytes < b.bytes || a.loss < b.loss || rates > 0;
  for (size_t i = 0; i < a.scores.size(); ++i) {
    const double gain = a.scores[i].share - b.scores[i].share;
    const double noise = std::hypot(a.scores[i].error, b.scores[i].error);
    if (gain < -noise) return false;
    better = better || gain > noise;
  }
  return better;
}

/// Where values lie on an axis, 0 .. 1. Losses that span more than a factor of 20 are shown by their
/// logarithm; a loss of 0 then lies below the others.
class Axis {
 public:
  Axis(std::vector<double> values, bool may_be_logarithmic) {
    double smallest = 0;
    for (const double v : values) {
      if (v > 0 && (smallest == 0 || v < smallest)) smallest = v;
    }
    const double largest = *std::max_element(values.begin(), values.end());
    logarithmic_ = may_be_logarithmic && smallest > 0 && largest > 20 * smallest;
    floor_ = smallest / 3;
    low_ = transform(*std::min_element(values.begin(), values.end()));
    high_ = transform(largest);
    if (high_ <= low_) high_ = low_ + std::max(1.0, std::abs(low_));
  }
  double place(double value) const { return (transform(value) - low_) / (high_ - low_); }
  double value(double place) const {
    const double t = low_ + place * (high_ - low_);
    return logarithmic_ ? std::pow(10, t) : t;
  }
  bool logarithmic() const { return logarithmic_; }

 private:
  double transform(double v) const { return logarithmic_ ? std::log10(std::max(v, floor_)) : v; }
  bool logarithmic_ = false;
  double floor_ = 0, low_ = 0, high_ = 1;
};

std::vector<double> all_bytes(const std::vector<Price>& prices) {
  std::vector<double> out;
  for (const Price& p : prices) out.push_back(p.bytes);
  return out;
}

std::vector<double> all_losses(const std::vector<Price>& prices) {
  std::vector<double> out;
  for (const Price& p : prices) out.push_back(p.loss);
  return out;
}

std::string mib(double bytes) { return fmt::format("{:.1f}", bytes / 1048576); }

char letter(size_t i, bool dominated) {
  return static_cast<char>((dominated ? 'a' : 'A') + static_cast<int>(i % 26));
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

void mark_dominated(std::vector<Price>& prices) {
  for (Price& price : prices) {
    price.dominated_by = -1;
    for (size_t i = 0; i < prices.size() && price.dominated_by < 0; ++i) {
      if (dominates(prices[i], price)) price.dominated_by = static_cast<int>(i);
    }
  }
}

std::string plot_text(const std::vector<Price>& prices, const std::string& loss_name, int width, int height) {
  if (prices.empty()) return "";
  const Axis x(all_bytes(prices), false), y(all_losses(prices), true);
  std::vector<std::string> grid(static_cast<size_t>(height), std::string(static_cast<size_t>(width), ' '));
  for (size_t i = 0; i < prices.size(); ++i) {
    const auto column = static_cast<size_t>(std::lround(x.place(prices[i].bytes) * (width - 1)));
    const auto row = static_cast<size_t>(std::lround((1 - y.place(prices[i].loss)) * (height - 1)));
    char& cell = grid[row][column];
    cell = cell == ' ' ? letter(i, prices[i].dominated_by >= 0) : '+';
  }
  std::string out = fmt::format("{} over MiB{}\n", loss_name, y.logarithmic() ? ", logarithmic" : "");
  for (int r = 0; r < height; ++r) {
    const bool labelled = r == 0 || r == height - 1;
    const double value = y.value(1 - static_cast<double>(r) / (height - 1));
    out += fmt::format("{:>10} |{}\n", labelled ? fmt::format("{:.3g}", value) : "",
                       grid[static_cast<size_t>(r)]);
  }
  out += fmt::format("{:>10} +{}\n", "", std::string(static_cast<size_t>(width), '-'));
  const std::string left = mib(x.value(0)), right = mib(x.value(1));
  const int gap = std::max(1, width - static_cast<int>(left.size() + right.size()));
  out += fmt::format("{:>10}  {}{:>{}}{}\n", "", left, "", gap, right);
  for (size_t i = 0; i < prices.size(); ++i) {
    const bool dominated = prices[i].dominated_by >= 0;
    out += fmt::format("  {} {}", letter(i, dominated), prices[i].name);
    if (dominated)
      out += fmt::format(" (dominated by {})", prices[static_cast<size_t>(prices[i].dominated_by)].name);
    out += '\n';
  }
  return out;
}

std::string plot_svg(const std::vector<Price>& prices, const std::string& loss_name) {
  constexpr double kWidth = 720, kHeight = 440, kLeft = 90, kRight = 160, kTop = 30, kBottom = 60;
  if (prices.empty()) return "";
  const Axis x(all_bytes(prices), false), y(all_losses(prices), true);
  const auto px = [&](double bytes) { return kLeft + x.place(bytes) * (kWidth - kLeft - kRight); };
  const auto py = [&](double loss) { return kHeight - kBottom - y.place(loss) * (kHeight - kTop - kBottom); };
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" "
      "font-size=\"12\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n"
      "<path d=\"M{2} {3}V{4}H{5}\" fill=\"none\" stroke=\"black\"/>\n",
      kWidth, kHeight, kLeft - 15, kTop, kHeight - kBottom + 15, kWidth - kRight + 15);
  for (const double place : {0.0, 0.5, 1.0}) {
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n",
                       px(x.value(place)), kHeight - kBottom + 32, mib(x.value(place)));
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{:.3g}</text>\n", kLeft - 20,
                       kHeight - kBottom - place * (kHeight - kTop - kBottom) + 4, y.value(place));
  }
  out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">MiB (weights and KV)</text>\n",
                     (kLeft + kWidth - kRight) / 2, kHeight - 10);
  out += fmt::format("<text x=\"{}\" y=\"18\">{}{}</text>\n", kLeft - 15, escaped(loss_name),
                     y.logarithmic() ? ", logarithmic" : "");
  std::vector<const Price*> frontier;
  for (const Price& p : prices) {
    if (p.dominated_by < 0) frontier.push_back(&p);
  }
  std::sort(frontier.begin(), frontier.end(),
            [](const Price* a, const Price* b) { return a->bytes < b->bytes; });
  out += "<polyline fill=\"none\" stroke=\"#1f77b4\" points=\"";
  for (const Price* p : frontier) out += fmt::format("{:.1f},{:.1f} ", px(p->bytes), py(p->loss));
  out += "\"/>\n";
  for (const Price& p : prices) {
    out += fmt::format(
        "<circle cx=\"{0:.1f}\" cy=\"{1:.1f}\" r=\"4\" fill=\"{2}\" stroke=\"#1f77b4\"/>\n"
        "<text x=\"{3:.1f}\" y=\"{4:.1f}\">{5}</text>\n",
        px(p.bytes), py(p.loss), p.dominated_by < 0 ? "#1f77b4" : "white", px(p.bytes) + 7, py(p.loss) - 6,
        escaped(p.name));
  }
  return out + "</svg>\n";
}

}  // namespace mete
