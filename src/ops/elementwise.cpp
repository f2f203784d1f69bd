#include "ops/elementwise.h"

#include <algorithm>
#include <cstring>

#include "ops/over_rows.h"

namespace mete {
namespace {

template <typename Body>
void over_elements(Context& ctx, int64_t count, Body body) {
  ctx.enter(Part::kElementwise);
  ctx.pool.parallel_for(count, kPieceElements,
                        [&](int64_t begin, int64_t end, int) { body(begin, end - begin); });
}

}  // namespace

void rms_norm(Context& ctx, const float* x, const float* weight, float eps, int64_t rows, int64_t n,
              float* out) noexcept {
  over_rows(ctx, rows, n,
            [&](int64_t r) { ctx.kernels.floats.rms_norm(x + r * n, weight, eps, n, out + r * n); });
}

void layer_norm(Context& ctx, const float* x, const float* weight, const float* bias, float eps, int64_t rows,
                int64_t n, float* out) noexcept {
  over_rows(ctx, rows, n,
            [&](int64_t r) { ctx.kernels.floats.layer_norm(x + r * n, weight, bias, eps, n, out + r * n); });
}

void add_in_place(Context& ctx, float* x, const float* y, int64_t rows, int64_t n) noexcept {
  over_elements(ctx, rows * n,
                [&](int64_t i, int64_t count) { ctx.kernels.floats.add(x + i, y + i, count, x + i); });
}

void scale_in_place(Context& ctx, float* x, float factor, int64_t rows, int64_t n) noexcept {
  over_elements(ctx, rows * n,
                [&](int64_t i, int64_t count) { ctx.kernels.floats.scale(x + i, factor, count, x + i); });
}

void mul_rows(Context& ctx, const float* x, const float* weight, int64_t rows, int64_t n,
              float* out) noexcept {
  over_rows(ctx, rows, n, [&](int64_t r) { ctx.kernels.floats.mul(x + r * n, weight, n, out + r * n); });
}

void gaussian_topk(Context& ctx, float* x, float multiplier, int64_t rows, int64_t n) noexcept {
  over_rows(ctx, rows, n,
            [&](int64_t r) { ctx.kernels.floats.gaussian_topk(x + r * n, multiplier, n, x + r * n); });
}

void scale_by_sigmoid(Context& ctx, float* x, const float* gates, int64_t rows, int64_t n) noexcept {
  over_rows(ctx, rows, n, [&](int64_t r) {
    const float negated = -gates[r];
    float power;
    ctx.kernels.floats.exp(&negated, 1, &power);
    ctx.kernels.floats.scale(x + r * n, 1.0f / (1.0f + power), n, x + r * n);
  });
}

void silu_mul(Context& ctx, const float* gate, const float* up, int64_t rows, int64_t n,
              float* out) noexcept {
  over_elements(ctx, rows * n, [&](int64_t i, int64_t count) {
    ctx.kernels.floats.silu_mul(gate + i, up + i, count, out + i);
  });
}

void gelu_mul(Context& ctx, const float* gate, const float* up, int64_t rows, int64_t n,
              float* out) noexcept {
  over_elements(ctx, rows * n, [&](int64_t i, int64_t count) {
    ctx.kernels.floats.gelu_mul(gate + i, up + i, count, out + i);
  });
}

void swiglu_clamped(Context& ctx, const float* gate, const float* up, int64_t rows, int64_t n,
                    float* out) noexcept {
  over_elements(ctx, rows * n, [&](int64_t i, int64_t count) {
    ctx.kernels.floats.swiglu_clamped(gate + i, up + i, 1.702f, 7.0f, count, out + i);
  });
}

void copy_rows(Context& ctx, const float* x, int64_t x_stride, int64_t rows, int64_t n, float* out,
               int64_t out_stride) noexcept {
  over_rows(ctx, rows, n, [&](int64_t r) {
    std::memcpy(out + r * out_stride, x + r * x_stride, static_cast<size_t>(n) * sizeof(float));
  });
}

void softcap_in_place(Context& ctx, float* x, float cap, int64_t rows, int64_t n) noexcept {
  over_elements(ctx, rows * n,
                [&](int64_t i, int64_t count) { ctx.kernels.floats.softcap(x + i, cap, count, x + i); });
}

void row_stats(Context& ctx, const float* logits, int64_t rows, int64_t n, RowStats* stats) noexcept {
  over_rows(ctx, rows, n, [&](int64_t r) { stats[r] = ctx.kernels.floats.row_stats(logits + r * n, n); });
}

}  // namespace mete
