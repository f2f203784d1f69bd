// Rows of `mete bench` as tables for people and spreadsheets, and beside an earlier run's.
#include <algorithm>
#include <array>
#include <fstream>
#include <nlohmann/json.hpp>

#include "apps/bench_rows.h"

namespace mete {
namespace {

using Json = nlohmann::ordered_json;

double number(const Json& row, const char* key) {
  const auto it = row.find(key);
  return it != row.end() && it->is_number() ? it->get<double>() : 0.0;
}
std::string text(const Json& row, const char* key) {
  const auto it = row.find(key);
  return it != row.end() && it->is_string() ? it->get<std::string>() : "";
}

std::string load_cells(const Json& row) {
  if (!text(row, "note").empty()) return fmt::format("not measured: {} | - | - | - | -", text(row, "note"));
  std::string share = "-";
  if (number(row, "share_of_limit") > 0) {
    share = fmt::format("{:.0f} % of {:.2f} GB/s drive", 100 * number(row, "share_of_limit"),
                        number(row, "machine_drive_bytes_per_s") / 1e9);
  }
  return fmt::format("{:.3f} s [{:.3f}, {:.3f}] | {:.2f} GB/s | {} | - | -", number(row, "load_s"),
                     number(row, "load_q1_s"), number(row, "load_q3_s"),
                     number(row, "load_bytes_per_s") / 1e9, share);
}

std::string speed_cells(const Json& row) {
  const bool memory = text(row, "limit") == "memory";
  const std::string moved = memory ? fmt::format("{:.1f} GB/s", number(row, "read_bytes_per_s") / 1e9)
                                   : fmt::format("{:.3f} TOPS", number(row, "ops_per_s") / 1e12);
  const bool mixed = number(row, "n_prompt") > 0 && number(row, "n_gen") > 0;
  std::string share = "-";
  if (number(row, "share_of_limit") > 0) {
    share = fmt::format("{:.0f} %", 100 * number(row, "share_of_limit"));
    if (mixed) {
      share += " of both limits";
    } else if (memory) {
      share += fmt::format(" of {:.1f} GB/s", number(row, "machine_read_bytes_per_s") / 1e9);
    } else {
      const bool floats = text(row, "limit") == "f32";
      share += fmt::format(" of {:.2f} {} TOPS",
                           number(row, floats ? "machine_f32_ops_per_s" : "machine_int8_ops_per_s") / 1e12,
                           text(row, "limit"));
    }
  }
  const Json first = row.value("ttft_s", Json());
  return fmt::format("{:.2f} [{:.2f}, {:.2f}] | {} | {} | {} | {:.1f}", number(row, "median_ts"),
                     number(row, "q1_ts"), number(row, "q3_ts"), moved, share,
                     first.is_number() ? fmt::format("{:.3f}", first.get<double>()) : "-",
                     number(row, "read_bytes_per_token") / 1e6);
}

std::string footer(const Json& rows) {
  const Json& row = rows.back();
  std::string out = fmt::format("\n{} | {} | {} | mete {} | {} {} | tier {}\n", text(row, "cpu_info"),
                                text(row, "kernel"), text(row, "compiler"), text(row, "build_commit"),
                                text(row, "model_filename"), text(row, "model_hash"), text(row, "cpu_tier"));
  out +=
      "t/s: median [quartiles]. Limits are measured beside each row, with its threads: memory reads, or "
      "arithmetic "
      "where that takes longer. MB/token: weights and KV read from memory.\n";
  if (!text(row, "power").empty()) out += "J/token: not available (" + text(row, "power") + ")\n";
  double share = 0;
  for (const Json& r : rows) share = std::max(share, number(r, "ledger_share"));
  if (share > 0)
    out += fmt::format("The ledger's own cost: at most {:.2f} % of the time of a row.\n", 100 * share);
  return out;
}

std::string cell(const Json& value) {
  const std::string content = value.is_string() ? value.get<std::string>()
                              : value.is_null() ? ""
                                                : value.dump();
  std::string quoted = "\"";
  for (const char c : content) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::vector<double> speeds(const Json& row) {
  std::vector<double> values;
  const auto it = row.find("samples_ts");
  if (it == row.end() || !it->is_array()) return values;
  for (const Json& v : *it) {
    if (v.is_number()) values.push_back(v.get<double>());
  }
  return values;
}

/// What must be equal in two rows that are compared. llama-bench's rows have no n_parallel.
std::array<double, 5> key_of(const Json& row) {
  return {number(row, "n_prompt"), number(row, "n_gen"), number(row, "n_depth"),
          std::max(1.0, number(row, "n_parallel")), number(row, "n_threads")};
}

}  // namespace

std::string markdown(const Json& rows) {
  if (rows.empty()) return {};
  std::string out =
      "| model | threads | test | t/s | moved | of limit | first token s | MB/token | J/token | peak RSS MiB "
      "|\n"
      "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  for (const Json& row : rows) {
    const std::string model = text(row, "model_filename");
    const Json& threads = row.value("n_threads", Json());
    const Json joules = row.value("joules_per_token", Json());
    out += fmt::format("| {} | {} | {} | {} | {} | {:.1f} |\n", model.substr(model.rfind('/') + 1),
                       threads.is_number() ? threads.dump() : "-", text(row, "test"),
                       row.contains("load_s") ? load_cells(row) : speed_cells(row),
                       joules.is_number() ? fmt::format("{:.3f}", joules.get<double>()) : "-",
                       number(row, "peak_rss_bytes") / 1048576);
  }
  return out + footer(rows);
}

std::string csv(const Json& rows) {
  // Load rows have other fields than tests: the columns are all that occur.
  std::vector<std::string> columns;
  for (const Json& row : rows) {
    for (const auto& [key, value] : row.items()) {
      const bool known = std::find(columns.begin(), columns.end(), key) != columns.end();
      if (!known && !value.is_structured()) columns.push_back(key);
    }
  }
  std::string out;
  const auto add = [&out](const std::string& content, bool first) {
    if (!first) out += ',';
    out += content;
  };
  for (const std::string& column : columns) add(column, &column == &columns.front());
  out += '\n';
  for (const Json& row : rows) {
    for (const std::string& column : columns) {
      add(cell(row.contains(column) ? row[column] : Json("")), &column == &columns.front());
    }
    out += '\n';
  }
  return out;
}

std::string compare(const Json& rows, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw run_failure("--compare {}: cannot be opened", path);
  const Json other = Json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!other.is_array()) throw run_failure("--compare {}: not an array of rows as -o json writes them", path);
  std::string out = fmt::format(
      "\nAgainst {}:\n\n| test | threads | t/s now | t/s then | ratio | noise | |\n"
      "| --- | ---: | ---: | ---: | ---: | ---: | --- |\n",
      path);
  int found = 0;
  std::string warning;
  for (const Json& row : rows) {
    for (const Json& old : other) {
      if (!old.is_object() || row.contains("load_s") || key_of(old) != key_of(row)) continue;
      const Ratio ratio = ratio_of(speeds(row), speeds(old));
      if (ratio.value == 0) continue;
      ++found;
      out += fmt::format("| {} | {} | {:.2f} | {:.2f} | {:.3f} | +- {:.3f} | {} |\n", text(row, "test"),
                         row["n_threads"].dump(), spread_of(speeds(row)).median,
                         spread_of(speeds(old)).median, ratio.value, ratio.noise,
                         ratio.within_noise() ? "within noise"
                         : ratio.value > 1    ? "faster"
                                              : "slower");
      for (const char* what : {"cpu_info", "model_hash", "type_k", "type_v"}) {
        const bool differs = text(row, what) != text(old, what) && !text(old, what).empty();
        if (differs && warning.find(what) == std::string::npos)
          warning += fmt::format("{} differs: {} now, {} then\n", what, text(row, what), text(old, what));
      }
    }
  }
  if (found == 0) throw run_failure("--compare {}: no row of the same test and threads", path);
  return out + warning;
}

}  // namespace mete
