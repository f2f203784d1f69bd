# The tier table: a kernel source ends in _<tier>.cpp and is compiled with that tier's flags.
# `generic` has no flags of its own; base/cpu.h lists what each tier needs at run time.
set(METE_TIERS avx2 avx2_vnni avx512 avx512_vnni avx512_bf16)
set(METE_FLAGS_avx2 -mavx2 -mfma -mf16c)
set(METE_FLAGS_avx2_vnni ${METE_FLAGS_avx2} -mavxvnni)
set(METE_FLAGS_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512cd -mavx2 -mfma -mf16c)
set(METE_FLAGS_avx512_vnni ${METE_FLAGS_avx512} -mavx512vnni)
set(METE_FLAGS_avx512_bf16 ${METE_FLAGS_avx512_vnni} -mavx512bf16)

# GCC 12 warns about the undefined vectors in its own intrinsics headers (GCC bug 105593).
set(METE_TIER_WARNINGS $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized>)

foreach(tier IN LISTS METE_TIERS)
  file(GLOB tier_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/kernels/cpu/*_${tier}.cpp)
  foreach(source IN LISTS tier_sources)
    set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${METE_FLAGS_${tier}};${METE_TIER_WARNINGS}")
  endforeach()
endforeach()
