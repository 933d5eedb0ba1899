#!/usr/bin/env bash
# Builds the image with the PyPI wheel without a Docker engine and tries it as a container engine would run it: no privileges,
# no capabilities, a read-only root, a network of its own. Bounded in time; leaves nothing running.
#   PYTHON_IMAGE=…  a base image to use; otherwise Debian's Python, made by debootstrap
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
storage=(buildah --storage-driver vfs)
image=localhost/triton-sam2:wheel
base=${PYTHON_IMAGE:-localhost/debian-python:bookworm}

for tool in buildah debootstrap unshare setpriv ip; do
    if ! command -v "$tool" > /dev/null; then
        echo "$tool is missing. Debian and Ubuntu: apt-get install buildah debootstrap util-linux iproute2" >&2
        exit 2
    fi
done
if [ "$(id -u)" -ne 0 ]; then
    echo "Making file systems and user ids for the test needs root: sudo just test-image" >&2
    exit 2
fi

work=$(mktemp -d)
container=
cleanup() {
    if [ -n "$container" ]; then
        "${storage[@]}" umount "$container" > /dev/null || true
        "${storage[@]}" rm "$container" > /dev/null || true
    fi
    rm -rf "$work"
}
trap cleanup EXIT

if [ -z "${PYTHON_IMAGE:-}" ] && ! "${storage[@]}" inspect --type image "$base" > /dev/null 2>&1; then
    echo "== base: Debian bookworm with Python 3.11"
    timeout 900 debootstrap --variant=minbase \
        --include=python3,python3-venv,libpython3.11,ca-certificates bookworm "$work/base" > "$work/log" 2>&1 \
        || { tail -n 20 "$work/log" >&2; exit 1; }
    scratch=$("${storage[@]}" from --isolation chroot scratch)
    "${storage[@]}" add "$scratch" "$work/base" / > /dev/null
    "${storage[@]}" commit --quiet --rm "$scratch" "$base"
    rm -rf "$work/base"
fi

echo "== build: docker/Dockerfile, target wheel"
# The builder's own authorities are lent to the build alone, for networks with a proxy that has its own.
timeout 1200 "${storage[@]}" build --isolation chroot --format docker --layers=false \
    --ignorefile docker/Dockerfile.dockerignore --build-arg "PYTHON_IMAGE=$base" \
    --volume /etc/ssl/certs:/etc/ssl/certs:ro \
    --target wheel --tag "$image" --file docker/Dockerfile . > "$work/log" 2>&1 \
    || { tail -n 40 "$work/log" >&2; exit 1; }

echo "== repository: the small model in the box"
mkdir "$work/models"
"$python" -m export.repository --onnx-dir export/demo_model/onnx --output-dir "$work/models/repository"
chmod -R a+rX "$work"

container=$("${storage[@]}" from --isolation chroot "$image")
"${storage[@]}" inspect --type image "$image" > "$work/image.json"
echo "== run"
timeout 300 unshare --mount --pid --net --ipc --uts --fork --mount-proc --kill-child \
    "$python" docker/deploy/image_test.py "$("${storage[@]}" mount "$container")" "$work"
