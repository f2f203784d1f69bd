#!/usr/bin/env bash
# Builds and runs all tests of the Release build. Tests that need a model or data that is absent are skipped; the
# closing lines name them and count.
#   METE_MODEL_DIR   folder of GGUF files (default ~/.cache/mete/models)
#   METE_DATA_DIR    folder of texts (wikitext2-valid.txt, ...)
set -euo pipefail
cd "$(dirname "$0")/.."
tools/packages.sh
preset=${METE_PRESET:-release}
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset"
ctest --preset "$preset" -j "$(nproc)"
