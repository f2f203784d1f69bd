#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/gemm_q32.h"
#include "kernels/cpu/simd_unroll.h"

namespace mete {
namespace avx512 {
namespace {
#include "kernels/cpu/gemm_q32_simd512.h"
//
#include "kernels/cpu/gemm_q32_tiles.h"
}  // namespace
}  // namespace avx512

METE_DEFINE_GEMM_Q32(avx512)

}  // namespace mete
