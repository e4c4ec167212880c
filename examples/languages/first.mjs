// Verifies a server, sends it an image of a one, and prints what it read: node first.mjs URL insecure|ENCLAVE_HASH.

import { Tensor, connect } from "@confonnx/client";

const [url, expected] = process.argv.slice(2);
const client = await connect(url, expected === "insecure" ? { allowDebug: true } : { enclaveHash: expected });

const image = new Float32Array(28 * 28);
for (let row = 4; row < 24; row++) image.fill(1, row * 28 + 13, row * 28 + 15);
// Attests first, and throws if the server is not what is expected: then nothing was sent.
const { probabilities } = await client.infer({ image: new Tensor(image, [1, 1, 28, 28]) });
console.log("digit", probabilities.data.indexOf(Math.max(...probabilities.data)));
