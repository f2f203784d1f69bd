#!/usr/bin/env bash
# From nothing to an answer: installs the packages, builds Release, fetches the default model, answers a prompt.
#   tools/quickstart.sh ["PROMPT"]
set -euo pipefail
cd "$(dirname "$0")/.."
tools/packages.sh
cmake --preset release >/dev/null
cmake --build --preset release --target mete
model=$(tools/fetch_model.sh)
build/release/mete run -m "$model" --temp 0 -n 128 --receipt -p "${1:-Why is the sky blue?}"
