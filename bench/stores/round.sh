#!/bin/sh
# One interleaved round of the publishing rates: every candidate in turn under every load, each in a process
# and a directory of its own. usage: round.sh <stores binary> <scratch directory> <candidate>…
set -eu
stores=$1 scratch=$2
shift 2
for load in "1 1" "1 16" "1 256" "10 16" "1000 16"; do
    users=${load% *} publishers=${load#* }
    for candidate in "$@"; do
        rm -rf "$scratch/append"
        "$stores" "$candidate" append --dir "$scratch/append" \
            --users "$users" --publishers "$publishers" --seconds "${SECONDS_EACH:-2}"
    done
done
rm -rf "$scratch/append"
