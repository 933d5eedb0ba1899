#!/bin/sh
# One click on an image ► a mask as a PNG file, with curl.
#
#   ./segment.sh http://localhost:8000 photo.jpg 512 380 mask.png
set -eu

if [ $# -ne 5 ]; then
  echo "usage: segment.sh URL IMAGE X Y OUTPUT.png" >&2
  exit 2
fi
url=$1 image=$2 x=$3 y=$4 output=$5

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT

size=$(wc -c < "$image")
printf '{"inputs": [
  {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": %d}},
  {"name": "point_coords", "datatype": "FP32", "shape": [1, 1, 2], "data": [%s, %s]},
  {"name": "point_labels", "datatype": "INT32", "shape": [1, 1], "data": [1]},
  {"name": "mask_format", "datatype": "BYTES", "shape": [1], "data": ["png"]}],
 "outputs": [{"name": "masks_png", "parameters": {"binary_data": true}}]}' \
  $((size + 4)) "$x" "$y" > "$work/request"
header_size=$(wc -c < "$work/request")

# The image travels as it is, after the JSON header: 4 bytes of length (little-endian), then the file.
for shift in 0 8 16 24; do
  printf "\\$(printf %03o $((size >> shift & 255)))"
done >> "$work/request"
cat "$image" >> "$work/request"

status=$(curl --silent --show-error --header "Inference-Header-Content-Length: $header_size" --header "Expect:" \
  --header "Content-Type: application/octet-stream" \
  --data-binary "@$work/request" --dump-header "$work/headers" --output "$work/answer" \
  --write-out '%{http_code}' "$url/v2/models/sam2/infer")
if [ "$status" != 200 ]; then
  echo "$status: $(cat "$work/answer")" >&2
  exit 1
fi

# The only binary output follows the JSON header; its 4 bytes of length are skipped.
skip=$(tr -d '\r' < "$work/headers" | awk 'tolower($1) == "inference-header-content-length:" { print $2 }')
tail -c "+$((skip + 5))" "$work/answer" > "$output"
echo "mask in $output"
