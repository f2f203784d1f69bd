#!/usr/bin/env bash
# Installs the Debian 12 packages that mete is built with. `--dev` adds what CI needs: Clang, sanitizers,
# clang-format. Does nothing if all are there already.
set -euo pipefail
packages=(cmake ninja-build g++-12 pkg-config libcli11-dev libfmt-dev libpcre2-dev libxxhash-dev nlohmann-json3-dev
          libboost1.81-dev libtomlplusplus-dev libgtest-dev libgmock-dev libbenchmark-dev python3 python3-pip)
if [ "${1:-}" = "--dev" ]; then
  packages+=(chromium chromium-driver clang-14 clang-format-14 libclang-rt-14-dev llvm-14 ccache git bubblewrap)
fi
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ "${#missing[@]}" -eq 0 ] && exit 0
echo "installing: ${missing[*]}" >&2
sudo=""
[ "$(id -u)" -eq 0 ] || sudo=sudo
$sudo apt-get update -qq
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
