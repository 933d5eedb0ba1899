# Segment Anything 2.1 on NVIDIA Triton. `just` alone lists what can be done.

set shell := ["bash", "-euo", "pipefail", "-c"]
set positional-arguments

python := ".venv/bin/python"
# The exporter lives in the root, the launcher in docker/; the benchmark decodes images as the server does.
export PYTHONPATH := justfile_directory() + ":" + justfile_directory() + "/docker:" + justfile_directory() + "/models/sam2_preprocess/1:" + justfile_directory() + "/models/sam2_video/1:" + justfile_directory() + "/models/shared"

# List the recipes
[private]
default:
    @just --list --unsorted

# Create .venv with everything that development needs (the other recipes install what they need themselves)
[group('start')]
setup: (_install "client,server,export,dev,front")
    @echo "Ready: .venv"

# From a fresh clone to pictures: serve the small model in the box, segment a photograph by clicks and as a whole
[group('start')]
demo: (_install "client,server")
    {{ python }} -m demo

# Coins followed through a clip by the small model, whose memory is untrained as yet ► demo-output/tracked.png, .mp4
[group('start')]
demo-video: (_install "client,server,video")
    {{ python }} -m demo.video

# Download Meta's checkpoint of a size (tiny, small, base_plus, large) into checkpoints/
[group('models')]
download size *args: (_install "client,server,export")
    {{ python }} -m export.download "$@"

# Turn a size's checkpoint into model_repository/, downloading it first (options: just export tiny --help)
[group('models')]
export size *args: (_install "client,server,export")
    case " $* " in \
        *" --checkpoint"* | *" --random-weights"* | *" --help "*) ;; \
        *) {{ python }} -m export.download "$1" ;; \
    esac
    {{ python }} -m export --size "$@"

# Train the small model in the box anew (options: just train-demo --help)
[group('models')]
train-demo *args: (_install "client,server,export,dev,front")
    {{ python }} -m export.demo_model.train "$@"

# Train the small model's memory, which tracks through video, on moving scenes (options: just train-demo-video --help)
[group('models')]
train-demo-video *args: (_install "client,server,export,dev,front")
    {{ python }} -m export.demo_model.video.train "$@"

# Write the small model's ONNX files from its weights
[group('models')]
export-demo: (_install "client,server,export,dev,front")
    {{ python }} -m export --checkpoint export/demo_model/weights --onnx-only export/demo_model/onnx --model-name demo

# Measure the small model on held-out scenes and photographs (options: just evaluate-demo --help)
[group('models')]
evaluate-demo *args: (_install "client,server,export,dev,front")
    {{ python }} -m export.demo_model.evaluate "$@"

# Measure the small model's tracking on held-out clips, by torch or a server (options: just evaluate-demo-video --help)
[group('models')]
evaluate-demo-video *args: (_install "client,server,export,dev,front")
    {{ python }} -m export.demo_model.video.evaluate "$@"

# Start the server in the foreground on model_repository/ (Ctrl-C stops it; options: just serve --help)
[group('server')]
serve *args: (_install "client,server")
    {{ python }} -m sam2_server serve "$@"

# Start the server on the small model in the box
[group('server')]
serve-demo *args: (_install "client,server")
    {{ python }} -m export.repository --onnx-dir export/demo_model/onnx --output-dir .demo_repository
    {{ python }} -m sam2_server serve --model-repository .demo_repository "$@"

# Stop the server that `just serve` started here
[group('server')]
stop *args: (_install "client,server")
    {{ python }} -m sam2_server stop "$@"

# Say what runs, and whether it answers a real call
[group('server')]
status *args: (_install "client,server")
    {{ python }} -m sam2_server status "$@"

# Segment an image: just segment photo.jpg --point 320,240 -o mask.png --overlay overlay.png
[group('server')]
segment *args: (_install "client")
    .venv/bin/triton-sam2 segment "$@"

# Stand before a server: REST, keys, every message read first (just front --triton localhost:8001 --api-keys FILE)
[group('server')]
front *args: (_install "client,front")
    .venv/bin/triton-sam2-front "$@"

# All tests, against a real server (arguments go to pytest)
[group('development')]
test *args: (_install "client,server,export,dev,front")
    {{ python }} -m pytest "$@"

# The quick tests: no slow ones, no server, under a minute
[group('development')]
test-fast *args: (_install "client,server,export,dev,front")
    {{ python }} -m pytest -m "not slow and not server" "$@"

# Install what some tests want besides Python packages (nginx, promtool, Go, …); Debian and Ubuntu, as root
[group('development')]
test-tools *args: (_install "client,server,export,dev,front")
    {{ python }} -m tests.tools "$@"

# Lint, formatting and types
[group('development')]
lint: (_install "client,server,export,dev,front")
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy

# Mend what lint can mend by itself
[group('development')]
fix: (_install "client,server,export,dev,front")
    .venv/bin/ruff check --fix .
    .venv/bin/ruff format .

# Remove what the recipes made here, except checkpoints
[group('development')]
clean:
    rm -rf .venv .run .demo_repository demo-output model_repository

# Latencies and bytes of a cold call and a cached click, against a client that does it the old way
[group('measurements')]
bench *args: (_install "client,server,export,dev,front")
    {{ python }} tests/bench/bench.py "$@"

# Cached clicks alone and beside a slow encode: latencies and their ratio
[group('measurements')]
bench-clicks: (_install "client,server,export,dev,front")
    {{ python }} tests/bench/clicks_during_encode.py

# Everything in an image with an untrained model of real size: equal to Meta's generator; time, memory, others' clicks
[group('measurements')]
bench-everything *args: (_install "client,server,export,dev")
    PYTHONPATH="$PYTHONPATH:models/shared:docker/backends/onnxruntime" {{ python }} tests/bench/everything.py "$@"

# A photograph to the encoder's pixels: processor time, exactness, memory, scaling (options: just bench-preprocess --help)
[group('measurements')]
bench-preprocess *args: (_install "client,server,export,dev,front")
    PYTHONPATH="$PYTHONPATH:models/shared" {{ python }} tests/bench/preprocess.py "$@"
# Everything in an image, against Meta's generator over PyTorch in float32: masks that changed sides are counted
[group('measurements')]
compare-everything: (_install "client,server,export,dev")
    {{ python }} -m tests.bench.everything_against_torch

# Mouse moves from eight sessions with cancellations: survivors right, cancelled requests really cancelled
[group('measurements')]
stress *args: (_install "client,server,export,dev,front")
    {{ python }} -m tests.client.stress "$@"

# Ten thousand requests that are nearly right, through the front: no fault, no death (options: just fuzz-front --help)
[group('measurements')]
fuzz-front *args: (_install "client,server,export,dev,front")
    {{ python }} -m tests.front.fuzz "$@"

# What the front costs: a cached click with and without it, memory of a large image, idle and slow connections
[group('measurements')]
bench-front: (_install "client,server,export,dev,front")
    {{ python }} -m tests.bench.front

# Full load for ten minutes: no wrong mask, no lost request, memory flat (options: just soak --help)
[group('measurements')]
soak *args: (_install "client,server,export,dev,front")
    {{ python }} tests/soak/soak.py "$@"

# Tracking against its graphs' own compute, two objects against one (options: just bench-video-overhead --help)
[group('measurements')]
bench-video-overhead *args: (_install "client,server,export,dev")
    PYTHONPATH="$PYTHONPATH:docker/backends/onnxruntime" {{ python }} -m tests.bench.video_overhead "$@"

# Tracking beside transformers' model in process, same weights: ratios, frames per second, parts of a frame (GPU: --grpc, --device)
[group('measurements')]
bench-video *args: (_install "client,server,export,dev")
    PYTHONPATH="$PYTHONPATH:docker/backends/onnxruntime" {{ python }} -m tests.bench.video "$@"

# Four tracked scenarios at 1024 px against Meta's own predictor; minutes of processor time
[group('development')]
test-video-full-size *args: (_install "client,server,export,dev")
    {{ python }} -m tests.models.video.full_size "$@"

# A session of 10,000 small frames: memory and time per frame flat; prints a curve (options: just soak-video --help)
[group('measurements')]
soak-video *args: (_install "client,server,export,dev")
    {{ python }} -m tests.soak.soak_video "$@"

# Paintera's model as it is meant, an untrained large at 1024 px, against Meta's encoder and decoder (6 GB, minutes)
[group('measurements')]
test-paintera *args: (_install "client,server,export,dev,front")
    {{ python }} -m pytest -s --timeout 3600 tests/server/paintera_large.py "$@"

# Containers: download, export FP16 (CPU: FP32), build, start, wait for a real answer (options: just deploy --help)
[group('deployment')]
deploy *args: (_install "client,server,export")
    {{ python }} -m deploy up "$@"

# Stop and remove the containers; --purge also removes models, keys and volumes
[group('deployment')]
undeploy *args: (_install "client,server")
    {{ python }} -m deploy down "$@"

# What the containers say (Ctrl-C ends it)
[group('deployment')]
logs *args: (_install "client,server")
    {{ python }} -m deploy logs "$@"

# Put another size into the running deployment without downtime
[group('deployment')]
reload *args: (_install "client,server,export")
    {{ python }} -m deploy reload "$@"

# On a GPU machine: CUDA and TensorRT against FP32; fails on a wrong mask (options: just gpu-check --help)
[group('deployment')]
gpu-check *args: (_install "client,server,export")
    {{ python }} -m gpu_check "$@"

# Build the image with the PyPI wheel without a Docker engine and try it: unprivileged, read-only root, a real call (needs root)
[group('deployment')]
test-image: (_install "client,server")
    docker/test-image.sh

# With Docker or Podman: a deployment under a name of its own, all of it tried, reloaded under traffic, removed
[group('deployment')]
test-deploy *args: (_install "client,server,export,dev,front")
    {{ python }} -m pytest -s --timeout 3600 tests/engine/deployment.py "$@"

[private]
_install extras:
    #!/usr/bin/env bash
    set -euo pipefail
    if [ ! -x .venv/bin/python ]; then
        for candidate in "${PYTHON:-}" python3.11 python3.12 python3.10 python3; do
            if [ -n "$candidate" ] && "$candidate" -c \
                'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
                python=$candidate
                break
            fi
        done
        if [ -z "${python:-}" ]; then
            echo "No Python 3.10, 3.11 or 3.12 found (Triton 24.10 runs these). Install one, or name it: PYTHON=… just …" >&2
            exit 1
        fi
        "$python" -m venv .venv
    fi
    # Installed once for each state of pyproject.toml.
    stamp=".venv/.installed-{{ extras }}-$(sha256sum pyproject.toml | cut -c1-12)"
    if [ ! -e "$stamp" ]; then
        echo "Installing {{ extras }} into .venv …" >&2
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[{{ extras }}]"
        case ",{{ extras }}," in *,dev,*)
            # Meta's own modules, to compare with. What it asks for besides (torchvision, …) is not needed.
            # Label Studio's decoder of its masks and Roboflow's client, as users have them: their own pins
            # (numpy 2, another OpenCV) would break the server's.
            .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
                "rf-sam-2==1.0.3" "label-studio-sdk==2.0.5" "inference-sdk==1.8.3" ;;
        esac
        touch "$stamp"
    fi
