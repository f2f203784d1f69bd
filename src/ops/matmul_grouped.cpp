#include "ops/matmul_grouped.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "ops/matmul_parts.h"

namespace mete {
namespace {

/// Panels [begin, end) of one group: a task.
struct Piece {
  int32_t group, begin, end;
};

/// What a group's kernel reads.
struct Source {
  Activations acts;
  ActivationKind kind;
  bool gathered;  // acts.rows is to be filled from the input's rows
};

bool contiguous(std::span<const int32_t> rows) {
  return rows.back() - rows.front() == static_cast<int32_t>(rows.size()) - 1;  // they ascend
}

size_t stride_of(ActivationKind kind, int64_t cols) {
  return kind == ActivationKind::kF32 ? static_cast<size_t>(cols) * 4 : activation_row_bytes(kind, cols);
}

/// Work of one thread is cut into about this many pieces, so that one that lost its CPU does not hold up
/// others.
constexpr int64_t kPiecesPerThread = 6;

int64_t work_of(const MatmulGroup& group) {  // in panels times tokens
  return panel_count(group.weight->rows) * static_cast<int64_t>(group.rows.size());
}

/// Cuts the groups into pieces of even work and of even numbers of panels; returns their number.
int64_t cut(const Context& ctx, std::span<const MatmulGroup> groups, Piece* pieces) {
  int64_t total = 0, count = 0;
  for (const MatmulGroup& group : groups) total += work_of(group);
  const int64_t share = std::max<int64_t>(1, total / (ctx.pool.active() * kPiecesPerThread));
  for (size_t g = 0; g < groups.size(); ++g) {
    const int64_t panels = panel_count(groups[g].weight->rows);
    const int64_t parts = std::clamp<int64_t>((work_of(groups[g]) + share / 2) / share, 1, (panels + 1) / 2);
    const int64_t step = ((panels + parts - 1) / parts + 1) / 2 * 2;
    for (int64_t begin = 0; begin < panels; begin += step) {
      pieces[count++] = {static_cast<int32_t>(g), static_cast<int32_t>(begin),
                         static_cast<int32_t>(std::min(panels, begin + step))};
    }
  }
  return count;
}

/// Upper bound of the pieces that cut() makes: a group of share w gets at most w / share + 1.
int64_t max_pieces(int threads, int64_t groups) { return 2 * (2 * groups + threads * kPiecesPerThread + 1); }

}  // namespace

void GroupedInput::reset(const float* x, int64_t rows, int64_t cols) {
  x_ = x;
  rows_ = rows;
  cols_ = cols;
  ready_[0] = ready_[1] = false;
}

void GroupedInput::reserve(ActivationKind kind, int64_t rows, int64_t cols) {
  if (kind == ActivationKind::kF32) return;
  quantised_[static_cast<int>(kind) - 1].get(activation_row_bytes(kind, cols) * static_cast<size_t>(rows));
}

const uint8_t* GroupedInput::get(Context& ctx, ActivationKind kind) {
  if (kind == ActivationKind::kF32) return reinterpret_cast<const uint8_t*>(x_);
  const int index = static_cast<int>(kind) - 1;
  uint8_t* out = quantised_[index].get(activation_row_bytes(kind, cols_) * static_cast<size_t>(rows_));
  if (!ready_[index]) quantize_rows(ctx, kind, x_, rows_, cols_, cols_, out);
  ready_[index] = true;
  return out;
}

int64_t GroupedInput::resident() const { return quantised_[0].resident() + quantised_[1].resident(); }

size_t matmul_grouped_bytes(int threads, int64_t groups, int64_t rows, size_t row_bytes) {
  return round_up_64(static_cast<size_t>(max_pieces(threads, groups)) * sizeof(Piece)) +
         round_up_64(static_cast<size_t>(groups) * sizeof(Source)) + static_cast<size_t>(rows) * row_bytes +
         static_cast<size_t>(groups) * 64;
}

void matmul_grouped(Context& ctx, GroupedInput& input, std::span<const MatmulGroup> groups) noexcept {
  if (groups.empty()) return;
  const int64_t cols = input.cols();
  const auto count = static_cast<int64_t>(groups.size());
  int64_t weight_bytes = 0;
  for (const MatmulGroup& group : groups) {
    weight_bytes += panel_count(group.weight->rows) * static_cast<int64_t>(group.weight->stride());
  }
  ctx.enter(Part::kExperts, weight_bytes);
  // Work list, sources, gathered rows.
  const size_t piece_bytes =
      round_up_64(static_cast<size_t>(max_pieces(ctx.pool.size(), count)) * sizeof(Piece));
  const size_t source_bytes = round_up_64(static_cast<size_t>(count) * sizeof(Source));
  size_t bytes = piece_bytes + source_bytes;
  const auto shares = [&](size_t g) {  // the rows that the group before it gathers
    return g > 0 && groups[g - 1].rows.data() == groups[g].rows.data() &&
           activation_kind_of(ctx, *groups[g - 1].weight) == activation_kind_of(ctx, *groups[g].weight);
  };
  for (size_t g = 0; g < groups.size(); ++g) {
    const MatmulGroup& group = groups[g];
    METE_CHECK(group.weight->cols == cols && !group.rows.empty());
    if (shares(g)) continue;
    bytes += round_up_64(stride_of(activation_kind_of(ctx, *group.weight), cols) * group.rows.size());
  }
  uint8_t* memory = ctx.gathered.get(bytes);
  auto* pieces = reinterpret_cast<Piece*>(memory);
  auto* sources = reinterpret_cast<Source*>(memory + piece_bytes);
  uint8_t* place = memory + piece_bytes + source_bytes;

  size_t gather_bytes = 0;
  for (int64_t g = 0; g < count; ++g) {
    const MatmulGroup& group = groups[static_cast<size_t>(g)];
    const ActivationKind kind = activation_kind_of(ctx, *group.weight);
    const size_t stride = stride_of(kind, cols);
    const uint8_t* rows = input.get(ctx, kind);
    if (contiguous(group.rows)) {
      sources[g] = {{rows + static_cast<size_t>(group.rows.front()) * stride, stride}, kind, false};
    } else if (shares(static_cast<size_t>(g))) {
      sources[g] = {sources[g - 1].acts, kind, false};
    } else {
      sources[g] = {{place, stride}, kind, true};
      place += round_up_64(stride * group.rows.size());
      gather_bytes += stride * group.rows.size();
    }
  }
  if (gather_bytes > 0) {
    // A few rows are copied faster than other threads can be woken.
    ctx.pool.parallel_for(count, gather_bytes < 65536 ? count : 1, [&](int64_t begin, int64_t end, int) {
      for (int64_t g = begin; g < end; ++g) {
        if (!sources[g].gathered) continue;
        const size_t stride = sources[g].acts.stride;
        const uint8_t* rows = input.get(ctx, sources[g].kind);
        uint8_t* out = const_cast<uint8_t*>(sources[g].acts.rows);
        for (const int32_t row : groups[static_cast<size_t>(g)].rows) {
          std::memcpy(out, rows + static_cast<size_t>(row) * stride, stride);
          out += stride;
        }
      }
    });
  }

  const int64_t n = cut(ctx, groups, pieces);
  METE_CHECK(n <= max_pieces(ctx.pool.size(), count));
  const size_t scratch_bytes = round_up_64(gemm_scratch_bytes(cols));
  uint8_t* scratch = ctx.workers.get(scratch_bytes * static_cast<size_t>(ctx.pool.size()));
  ctx.pool.parallel_for(n, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[i];
      const MatmulGroup& group = groups[static_cast<size_t>(piece.group)];
      const MatmulTarget target{group.weight, group.out, group.out_stride};
      run_panels(ctx, target, sources[piece.group].acts, static_cast<int64_t>(group.rows.size()), piece.begin,
                 piece.end, scratch + scratch_bytes * static_cast<size_t>(worker));
    }
  });
}

}  // namespace mete
