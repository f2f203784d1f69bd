#include <immintrin.h>
#include <string.h>

#include "kernels/cpu/gemm_q32.h"
#include "kernels/cpu/simd_unroll.h"

namespace mete {
namespace avx2_vnni {
namespace {
#include "kernels/cpu/gemm_q32_simd256.h"
//
#include "kernels/cpu/gemm_q32_tiles.h"
}  // namespace
}  // namespace avx2_vnni

METE_DEFINE_GEMM_Q32(avx2_vnni)

}  // namespace mete
