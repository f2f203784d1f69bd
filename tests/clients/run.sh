#!/usr/bin/env bash
# The official OpenAI and Anthropic Python clients against `mete serve`: tests/clients/run.sh MODEL.gguf [VENV]
# Installs the clients from PyPI into VENV (default build/clients). Optional: it needs the network.
set -euo pipefail
cd "$(dirname "$0")/../.."
model=$1
venv=${2:-build/clients}
[ -x "$venv/bin/pytest" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install -q openai anthropic pytest; }
log=$(mktemp)
"${METE_BINARY:-build/release/mete}" serve -m "$model" --port 0 -c 2048 --alias mete --log-format json 2>"$log" &
server=$!
trap 'kill $server 2>/dev/null; rm -f "$log"' EXIT
for _ in $(seq 300); do grep -q '"event":"ready"' "$log" && break; sleep 0.1; done
METE_URL=$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$log") "$venv/bin/pytest" -q "${@:3}" tests/clients/test_openai.py tests/clients/test_anthropic.py
