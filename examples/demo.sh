#!/bin/sh
# From a checkpoint to pictures of its clusters, by the commands that you would type; `make demo` installs cluinfer and
# runs this. What it makes lies in demo/. Works from any folder, with any cluinfer that has the extras export and openvino.

set -eu
cd "$(dirname "$0")/.."
shapes=examples/shapes

run() { # shows a command, with patterns for what the shell made of them, and runs it
    printf '\n$ %s\n' "$*" | sed 's|demo/scenes/0000.*[.]png|demo/scenes/*.png|'
    "$@"
}

rm -rf demo
mkdir demo

echo "Twenty scenes that the model has not seen, ten kinds of objects:"
run python "$shapes/scenes.py" --out demo/scenes --seed 20 --count 20

printf '\nA trained FEC becomes an engine, held against the checkpoint on these scenes:'
run cluinfer build "$shapes/checkpoints/fec.pt" --size 64 --classes "$shapes/classes.txt" --evidence 2 --similarities \
    --pictures demo/scenes/*.png -o demo/shapes.clu

printf '\nWhat it sees, and which pixels it put together for it:'
run cluinfer predict demo/shapes.clu demo/scenes/*.png --top 2 --report demo/report.html --overlay demo/overlays \
    --show segments

printf '\nHow fast it is here:'
run cluinfer bench demo/shapes.clu --seconds 5

printf '\nOpen demo/report.html in a browser: every picture with its clusters, and each head and stage of it.\n'
