// One click on the first frame of a video ► a mask of every frame, as PNG files, over HTTP. The server reads the
// video. Node.js 18 or newer, no packages.
//
//   node track.mjs http://localhost:8000 clip.mp4 512 380 masks/
import { createHash, randomUUID } from "node:crypto";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";

const [url, videoPath, x, y, outputFolder] = process.argv.slice(2);
if (!outputFolder) {
  console.error("usage: node track.mjs URL VIDEO X Y FOLDER");
  process.exit(2);
}

// Whoever knows a session's name may use it: random. Gateways route by a hash of it.
const sessionId = randomUUID();
const route = createHash("sha256").update(sessionId).digest("hex").slice(0, 16);

const tensor = (name, datatype, shape, data) => ({ name, datatype, shape, data });

// One step of the session ► its outputs by name. `file`, if any, travels as it is behind the JSON header: 4 bytes of
// length (little-endian), then the bytes. So does the mask in the answer.
async function step(command, inputs, outputs, file) {
  const named = [
    tensor("session_id", "BYTES", [1], [sessionId]),
    tensor("command", "BYTES", [1], [command]),
    ...inputs,
  ];
  const parts = [];
  if (file) {
    const length = Buffer.alloc(4);
    length.writeUInt32LE(file.length);
    named.push({ name: "video", datatype: "BYTES", shape: [1], parameters: { binary_data_size: 4 + file.length } });
    parts.push(length, file);
  }
  const wanted = outputs.map((name) => ({ name, parameters: { binary_data: name === "masks_png" } }));
  const header = Buffer.from(JSON.stringify({ inputs: named, outputs: wanted }));
  const response = await fetch(`${url}/v2/models/sam2_video/infer`, {
    method: "POST",
    headers: { "Inference-Header-Content-Length": String(header.length), "x-sam2-session": route },
    body: Buffer.concat([header, ...parts]),
  });
  const body = Buffer.from(await response.arrayBuffer());
  if (!response.ok) {
    throw new Error(`${response.status}: ${JSON.parse(body).error}`);
  }
  const headerLength = Number(response.headers.get("Inference-Header-Content-Length") ?? body.length);
  const answer = JSON.parse(body.subarray(0, headerLength));
  const named_outputs = Object.fromEntries(answer.outputs.map((output) => [output.name, output.data]));
  return { ...named_outputs, masks_png: body.subarray(headerLength + 4) };
}

try {
  const { num_frames } = await step("start", [], ["num_frames"], await readFile(videoPath));
  const frames = num_frames[0];
  try {
    const click = [
      tensor("frame_index", "INT32", [1], [0]),
      tensor("object_id", "INT64", [1], [1]),
      tensor("point_coords", "FP32", [1, 2], [Number(x), Number(y)]),
      tensor("point_labels", "INT32", [1], [1]),
      tensor("mask_format", "BYTES", [0], []), // no mask yet: tracking begins with this frame
    ];
    await step("prompt", click, ["object_score_logits"]);
    await mkdir(outputFolder, { recursive: true });
    for (let frame = 0; frame < frames; frame++) {
      const inputs = [tensor("frame_index", "INT32", [1], [frame]), tensor("mask_format", "BYTES", [1], ["png"])];
      const answer = await step("track", inputs, ["masks_png", "object_score_logits"]);
      await writeFile(join(outputFolder, `${String(frame).padStart(5, "0")}.png`), answer.masks_png);
      const there = answer.object_score_logits[0] > 0 ? "there" : "not there";
      console.log(`frame ${frame}: ${there}`);
    }
  } finally {
    await step("close", [], ["session_bytes"]);
  }
} catch (error) {
  console.error(error.message);
  process.exit(1);
}
