#include "ops/matmul.h"

#include <algorithm>

#include "base/error.h"
#include "ops/matmul_parts.h"
#include "quant/dequant.h"

namespace mete {
namespace {

/// Quantises x once for each kind that some target needs. Float rows are used where they lie.
void prepare(Context& ctx, const float* x, int64_t tokens, int64_t x_stride,
             std::span<const MatmulTarget> targets, Activations (&acts)[kActivationKinds]) {
  const int64_t cols = targets[0].weight->cols;
  size_t bytes = 0;
  size_t offset[kActivationKinds] = {};
  for (const MatmulTarget& target : targets) {
    METE_CHECK(target.weight->cols == cols);
    const ActivationKind kind = activation_kind_of(ctx, *target.weight);
    Activations& a = acts[static_cast<int>(kind)];
    if (a.stride != 0) continue;
    if (kind == ActivationKind::kF32) {
      a = {reinterpret_cast<const uint8_t*>(x), static_cast<size_t>(x_stride) * sizeof(float)};
      continue;
    }
    a.stride = activation_row_bytes(kind, cols);
    offset[static_cast<int>(kind)] = bytes;
    bytes += a.stride * static_cast<size_t>(tokens);
  }
  if (bytes == 0) return;
  uint8_t* buffer = ctx.activations.get(bytes);
  for (const ActivationKind kind : {ActivationKind::kQ8_16, ActivationKind::kQ8_K}) {
    Activations& a = acts[static_cast<int>(kind)];
    if (a.stride == 0) continue;
    uint8_t* rows = buffer + offset[static_cast<int>(kind)];
    a.rows = rows;
    quantize_rows(ctx, kind, x, tokens, x_stride, cols, rows);
  }
}

void add_bias(const MatmulTarget& target, int64_t tokens, int64_t row_begin, int64_t row_end) {
  for (int64_t t = 0; t < tokens; ++t) {
    float* out = target.out + t * target.out_stride;
    for (int64_t n = row_begin; n < row_end; ++n) out[n] += target.weight->bias[n];
  }
}

}  // namespace

ActivationKind activation_kind_of(const Context& ctx, const Linear& weight) {
  return ctx.mode == NumericMode::kReference ? ActivationKind::kF32 : activation_kind(weight.type);
}

void quantize_rows(Context& ctx, ActivationKind kind, const float* x, int64_t rows, int64_t x_stride,
                   int64_t cols, uint8_t* out) {
  const QuantizeActivationFn quantize =
      kind == ActivationKind::kQ8_16 ? ctx.kernels.quantize_q8_16 : ctx.kernels.quantize_q8_k;
  const size_t stride = activation_row_bytes(kind, cols);
  // A few rows are quantised faster than other threads can be woken.
  const int64_t grain = rows * cols <= 32768 ? rows : std::max<int64_t>(1, 16384 / cols);
  ctx.pool.parallel_for(rows, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      quantize(x + t * x_stride, cols, out + static_cast<size_t>(t) * stride);
    }
  });
}

void run_panels(Context& ctx, const MatmulTarget& target, const Activations& acts, int64_t tokens,
                int64_t begin, int64_t end, uint8_t* scratch) {
  const Linear& w = *target.weight;
  const int type = static_cast<int>(w.type);
  GemmArgs args{};
  args.panels = w.panels;
  args.panel_stride = w.stride();
  args.rows = w.rows;
  args.cols = w.cols;
  args.acts = acts.rows;
  args.act_stride = acts.stride;
  args.tokens = tokens;
  args.out = target.out;
  args.out_stride = target.out_stride;
  args.panel_begin = begin;
  args.panel_end = end;
  args.scratch = scratch;
  const GemmFn gemm =
      ctx.mode == NumericMode::kReference ? ctx.kernels.gemm_reference[type] : ctx.kernels.gemm[type];
  gemm(args);
  if (w.bias != nullptr) add_bias(target, tokens, begin * kPanelRows, std::min(w.rows, end * kPanelRows));
}

void matmul(Context& ctx, const float* x, int64_t tokens, int64_t x_stride,
            std::span<const MatmulTarget> targets) noexcept {
  if (tokens == 0) return;
  int64_t panels = 0, bytes = 0;
  for (const MatmulTarget& target : targets) {
    panels += panel_count(target.weight->rows);
    bytes += panel_count(target.weight->rows) * static_cast<int64_t>(target.weight->stride());
  }
  ctx.enter(Part::kMatmul, bytes);
  Activations acts[kActivationKinds];
  prepare(ctx, x, tokens, x_stride, targets, acts);

  // Even pieces, since kernels work on pairs of panels; several per thread, so that a thread that lost its
  // CPU for a moment does not hold up the others.
  const int64_t share = panels / (int64_t{ctx.pool.size()} * 6);
  const int64_t grain = std::clamp<int64_t>(share / 2 * 2, 2, 64);
  const size_t scratch_bytes = round_up_64(gemm_scratch_bytes(targets[0].weight->cols));
  uint8_t* scratch = ctx.workers.get(scratch_bytes * static_cast<size_t>(ctx.pool.size()));

  ctx.pool.parallel_for(panels, grain, [&](int64_t begin, int64_t end, int worker) {
    int64_t base = 0;  // index of the target's first panel
    for (const MatmulTarget& target : targets) {
      const int64_t count = panel_count(target.weight->rows);
      const int64_t first = std::max(begin, base) - base, last = std::min(end, base + count) - base;
      if (first < last) {
        const Activations& a = acts[static_cast<int>(activation_kind_of(ctx, *target.weight))];
        run_panels(ctx, target, a, tokens, first, last,
                   scratch + scratch_bytes * static_cast<size_t>(worker));
      }
      base += count;
    }
  });
}

void matmul(Context& ctx, const float* x, int64_t tokens, int64_t x_stride, const Linear& weight, float* out,
            int64_t out_stride) noexcept {
  const MatmulTarget target{&weight, out, out_stride};
  matmul(ctx, x, tokens, x_stride, std::span(&target, 1));
}

void embed(Context& ctx, const Linear& table, std::span<const int32_t> ids, float* out) noexcept {
  const size_t bytes = round_up_64(row_bytes(table.type, table.cols));
  ctx.enter(Part::kEmbed, static_cast<int64_t>(ids.size() * row_bytes(table.type, table.cols)));
  uint8_t* scratch = ctx.workers.get(bytes * static_cast<size_t>(ctx.pool.size()));
  ctx.pool.parallel_for(static_cast<int64_t>(ids.size()), 16, [&](int64_t begin, int64_t end, int worker) {
    uint8_t* row = scratch + bytes * static_cast<size_t>(worker);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t id = ids[static_cast<size_t>(i)];
      METE_CHECK(id >= 0 && id < table.rows);
      const uint8_t* panel = table.panels + static_cast<size_t>(id / kPanelRows) * table.stride();
      unpack_row(table.type, panel, static_cast<int>(id % kPanelRows), table.cols, row);
      dequantize_row(table.type, row, out + i * table.cols, table.cols);
    }
  });
}

}  // namespace mete
