// One click on an image ► a mask as a PNG file, over HTTP. Node.js 18 or newer, no packages.
//
//   node segment.mjs http://localhost:8000 photo.jpg 512 380 mask.png
import { readFile, writeFile } from "node:fs/promises";

const [url, imagePath, x, y, outputPath] = process.argv.slice(2);
if (!outputPath) {
  console.error("usage: node segment.mjs URL IMAGE X Y OUTPUT.png");
  process.exit(2);
}

// The image travels as it is, after the JSON header: 4 bytes of length (little-endian), then the file.
const file = await readFile(imagePath);
const length = Buffer.alloc(4);
length.writeUInt32LE(file.length);

const header = Buffer.from(
  JSON.stringify({
    inputs: [
      { name: "image", datatype: "BYTES", shape: [1], parameters: { binary_data_size: 4 + file.length } },
      { name: "point_coords", datatype: "FP32", shape: [1, 1, 2], data: [Number(x), Number(y)] },
      { name: "point_labels", datatype: "INT32", shape: [1, 1], data: [1] },
      { name: "mask_format", datatype: "BYTES", shape: [1], data: ["png"] },
    ],
    outputs: [
      { name: "masks_png", parameters: { binary_data: true } },
      { name: "iou_predictions" },
      { name: "cached_image_id" },
    ],
  }),
);

const response = await fetch(`${url}/v2/models/sam2/infer`, {
  method: "POST",
  headers: { "Inference-Header-Content-Length": String(header.length) },
  body: Buffer.concat([header, length, file]),
});
const body = Buffer.from(await response.arrayBuffer());
if (!response.ok) {
  console.error(`${response.status}: ${JSON.parse(body).error}`);
  process.exit(1);
}

const headerLength = Number(response.headers.get("Inference-Header-Content-Length"));
const answer = JSON.parse(body.subarray(0, headerLength));
const output = (name) => answer.outputs.find((tensor) => tensor.name === name).data[0];
const png = body.subarray(headerLength + 4); // the only binary output, its 4 bytes of length skipped
await writeFile(outputPath, png);

console.log(`predicted IoU ${output("iou_predictions").toFixed(3)}, mask in ${outputPath}`);
console.log(`next time, send image_id ${output("cached_image_id")} instead of the image`);
