// Compiled, not run: the types are those that callers write.

import { Client, ConfonnxError, Tensor, connect, type Proof } from "@confonnx/client";

const client: Client = await connect(new URL("https://models.example"), {
  enclaveHash: ["4a"],
  authKey: async () => "token",
  headers: { "x-ingress": "1" },
});
const proof: Proof = await client.attest({ signal: AbortSignal.timeout(1000) });
const outputs = await client.infer(
  { image: new Tensor(new Float32Array(784), [1, 1, 28, 28]), words: ["a", "b"] },
  { model: "digits", version: 1, onProgress: ({ sent, total }) => console.log(sent / total) },
);
const shape: number[] = outputs["scores"]!.shape;
const { body } = await client.stream("POST", "/v1/chat/completions", { body: "{}", headers: [["content-type", "application/json"]] });
body.getReader();
try {
  // @ts-expect-error: there is no such type.
  new Tensor(new Float32Array(1), [1], "float8");
} catch (error) {
  if (error instanceof ConfonnxError && error.kind === "attestation") console.log(error.checks[0]?.found);
}
console.log(proof.claims, shape);
