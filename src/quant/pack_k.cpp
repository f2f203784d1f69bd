#include "base/error.h"
#include "quant/pack_types.h"

namespace mete {

// Layouts of the 256-element super-block types are not there yet: refuse loudly.
void pack_panel_k(DType, const uint8_t*, int, int64_t, uint8_t*) { METE_CHECK(false && "Q*_K packing"); }
void unpack_row_k(DType, const uint8_t*, int, int64_t, uint8_t*) { METE_CHECK(false && "Q*_K packing"); }

}  // namespace mete
