#!/usr/bin/env bash
# The last step of a how-to: runs the tests that concern it and ends with PASS or FAIL.
#   tools/verify.sh model|op|tier
set -uo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
  model) targets=(test_models test_exactness) ;;
  op) targets=(test_kernels test_ops) ;;
  tier) targets=(test_base test_kernels test_quant test_exactness) ;;
  *) echo "usage: tools/verify.sh model|op|tier" >&2; exit 2 ;;
esac
status=0
cmake --preset release >/dev/null && cmake --build --preset release --target "${targets[@]}" || status=1
for target in "${targets[@]}"; do
  [ "$status" -eq 0 ] || break
  "build/release/tests/$target" --gtest_brief=1 || status=1
done
[ "$status" -eq 0 ] && echo PASS || echo FAIL
exit "$status"
