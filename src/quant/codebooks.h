// The value tables of the 4-bit codebook types.
#pragma once

#include <cstdint>

namespace mete {

/// IQ4_NL and IQ4_XS: a nibble's value (ggml's kvalues_iq4nl).
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};

/// MXFP4: a nibble's E2M1 value, doubled so that it is an integer (OCP MX 1.0; the scale is halved instead).
/// Index 8 is minus zero in the format; an integer table cannot hold its sign.
inline constexpr int8_t kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace mete
