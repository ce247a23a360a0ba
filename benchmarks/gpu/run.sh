#!/usr/bin/env bash
# The GPU tests and the tables beside TRL, in ten minutes at most, from a bare machine: see README.md.
# OUT= where results go, SMALL=1 rehearses all of it on a CPU, BUDGET= seconds, BUNDLE= the wheels, PYTHON= an interpreter.
set -uo pipefail
began=$(date +%s)
cd "$(dirname "$0")/../.."
out=${OUT:-build/gpu} budget=${BUDGET:-560} python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
mkdir -p "$out"
[ ! -e "$out/results.jsonl" ] || mv "$out/results.jsonl" "$out/results-$(date +%s).jsonl"
export PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 ALIGNZOO_CACHE=$site/cache
"$python" -m benchmarks.gpu.bundle install "${BUNDLE:-.gpu}" "$site/packages" || exit 1
export PYTHONPATH=$PWD:$site/packages ENDS=$((began + budget))
echo "installed after $(($(date +%s) - began)) s"
timeout --kill-after=5 $((budget + 15)) "$python" -m benchmarks.gpu "$out" ${SMALL:+--small} 2>&1 | tee -a "$out/log.txt"
failed=${PIPESTATUS[0]}
"$python" -m benchmarks.gpu.page "$out/results.jsonl" "$out" || true
echo "ended after $(($(date +%s) - began)) s"
exit "$failed"
