// One click on an image ► a mask as a PNG file, over gRPC.
//
//   npm install @grpc/grpc-js @grpc/proto-loader
//   node segment_grpc.mjs localhost:8001 photo.jpg 512 380 mask.png
import { readFile, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [address, imagePath, x, y, outputPath] = process.argv.slice(2);
if (!outputPath) {
  console.error("usage: node segment_grpc.mjs HOST:PORT IMAGE X Y OUTPUT.png");
  process.exit(2);
}

const protoPath =
  process.env.OPEN_INFERENCE_PROTO ??
  fileURLToPath(new URL("../proto/open_inference.proto", import.meta.url));
const { inference } = grpc.loadPackageDefinition(
  protoLoader.loadSync(protoPath, { keepCase: true, longs: Number }),
);
const client = new inference.GRPCInferenceService(address, grpc.credentials.createInsecure(), {
  // Images and masks larger than gRPC's 4 MB default.
  "grpc.max_send_message_length": -1,
  "grpc.max_receive_message_length": -1,
});

const request = {
  model_name: "sam2",
  inputs: [
    { name: "image", datatype: "BYTES", shape: [1], contents: { bytes_contents: [await readFile(imagePath)] } },
    { name: "point_coords", datatype: "FP32", shape: [1, 1, 2], contents: { fp32_contents: [Number(x), Number(y)] } },
    { name: "point_labels", datatype: "INT32", shape: [1, 1], contents: { int_contents: [1] } },
    { name: "mask_format", datatype: "BYTES", shape: [1], contents: { bytes_contents: [Buffer.from("png")] } },
  ],
  outputs: [{ name: "masks_png" }, { name: "iou_predictions" }, { name: "cached_image_id" }],
};

try {
  const response = await promisify(client.ModelInfer.bind(client))(request);
  const raw = (name) =>
    response.raw_output_contents[response.outputs.findIndex((tensor) => tensor.name === name)];
  await writeFile(outputPath, raw("masks_png").subarray(4)); // 4 bytes of length come first
  console.log(`predicted IoU ${raw("iou_predictions").readFloatLE(0).toFixed(3)}, mask in ${outputPath}`);
  console.log(`next time, send image_id ${raw("cached_image_id").subarray(4)} instead of the image`);
} catch (error) {
  console.error(`${grpc.status[error.code]}: ${error.details}`);
  process.exitCode = 1;
} finally {
  client.close();
}
