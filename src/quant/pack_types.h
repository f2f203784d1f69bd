// Packing per family of weight types; quant/pack.cpp chooses. The layout of a panel is described in each
// family's .cpp file. Arguments as in quant/pack.h.
#pragma once

#include "quant/pack.h"

namespace mete {

/// Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 IQ4_NL MXFP4 (pack_q32.cpp).
void pack_panel_q32(DType type, const uint8_t* source, int rows, int64_t cols, uint8_t* panel);
void unpack_row_q32(DType type, const uint8_t* panel, int lane, int64_t cols, uint8_t* row);

/// Q2_K..Q6_K IQ4_XS (pack_k.cpp).
void pack_panel_k(DType type, const uint8_t* source, int rows, int64_t cols, uint8_t* panel);
void unpack_row_k(DType type, const uint8_t* panel, int lane, int64_t cols, uint8_t* row);

/// F32 F16 BF16 (pack_float.cpp).
void pack_panel_float(DType type, const uint8_t* source, int rows, int64_t cols, uint8_t* panel);
void unpack_row_float(DType type, const uint8_t* panel, int lane, int64_t cols, uint8_t* row);

}  // namespace mete
