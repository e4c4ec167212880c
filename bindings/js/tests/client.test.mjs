// The package against a real server, over Node's fetch.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { ConfonnxError, Tensor, connect } from "../lib/node.js";
import { byFetch } from "../lib/transport.js";
import { Conversation } from "../wasm/confonnx.js";
import { ROOT, startServer } from "./server.mjs";

let server;
before(async () => {
  server = await startServer();
});
after(() => server.stop());

/** An image of a vertical stroke, which the model reads as the digit one. */
function one() {
  const image = new Float32Array(28 * 28);
  for (let row = 4; row < 24; row++) image[row * 28 + 13] = image[row * 28 + 14] = 1;
  return new Tensor(image, [1, 1, 28, 28]);
}

const development = (options) => connect(server.url, { allowDebug: true, ...options });

/** A transport that notes what it sends in `sent`. */
function recorded(sent) {
  return async (request) => {
    sent.push(request);
    return byFetch(request);
  };
}

const fails = (call, kind, text) =>
  assert.rejects(call, (error) => {
    assert.ok(error instanceof ConfonnxError, String(error));
    assert.equal(error.kind, kind, error.message);
    if (text) assert.match(error.message, text);
    return true;
  });

test("tensors go in and come out", async () => {
  const client = await development();
  const { inputs, outputs } = await client.metadata();
  assert.deepEqual(inputs.map(({ name }) => name), ["image"]);
  const answer = await client.infer({ image: one() });
  const scores = Object.values(answer)[0];
  assert.equal(Object.keys(answer)[0], outputs[0].name);
  assert.equal(scores.dtype, "float32");
  assert.deepEqual(scores.shape, [1, 10]);
  assert.ok(scores.data instanceof Float32Array && scores.data.length === 10);
  assert.equal(scores.data.indexOf(Math.max(...scores.data)), 1);
  assert.equal(client.proof.tee, "insecure");
  assert.ok(client.proof.checks.some(({ name }) => name === "report data"));
});

test("with every key encapsulation and cipher, whole and in chunks", async () => {
  const expected = Object.values(await (await development()).infer({ image: one() }))[0].data;
  for (const kem of ["x-wing", "x25519", "p-256"]) {
    for (const aead of ["aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"]) {
      for (const chunked of [false, true]) {
        const client = await development({ kem, aead, chunked });
        const found = Object.values(await client.infer({ image: one() }))[0].data;
        assert.deepEqual(found, expected, `${kem} ${aead} ${chunked}`);
      }
    }
  }
});

test("later requests resume, unless told not to", async () => {
  for (const [resumption, expected] of [[true, true], [false, false]]) {
    const sent = [];
    const client = await development({ resumption, transport: recorded(sent) });
    for (let n = 0; n < 4; n++) await client.infer({ image: one() });
    const types = sent.map(({ headers }) => headers.get("content-type"));
    assert.equal(types.includes("message/confonnx-session-req"), expected, types.join());
    assert.equal(sent.filter(({ method }) => method === "GET").length, 1);
  }
});

test("calls at once share one attestation", async () => {
  const sent = [];
  const client = await development({ transport: recorded(sent) });
  await Promise.all(Array.from({ length: 8 }, () => client.infer({ image: one() })));
  assert.equal(sent.filter(({ method }) => method === "GET").length, 1);
});

test("what is not proved is not sent", async () => {
  const sent = [];
  const client = await connect(server.url, { enclaveHash: "4a".repeat(32), transport: recorded(sent) });
  await assert.rejects(client.infer({ image: one() }), (error) => {
    assert.equal(error.kind, "attestation");
    assert.equal(error.genuine, true);
    const hash = error.checks.find(({ name }) => name === "enclave hash");
    assert.equal(hash.outcome, "failed");
    assert.match(hash.expected, /4a4a/);
    return true;
  });
  assert.deepEqual(sent.map(({ method }) => method), ["GET"]);
  await fails(connect(server.url), "policy", /nothing is expected/);
  await fails(connect(server.url, { policy: "strict", allowDebug: true }), "policy", /allowDebug/);
  await fails((await development({ modelHash: "00".repeat(32) })).infer({ image: one() }), "attestation");
});

test("a document of somebody else's is refused", async () => {
  const altered = async (request) => {
    const answer = await byFetch(request);
    if (request.method === "POST") return answer;
    const document = await new Response(new Blob(await Array.fromAsync?.(answer.body) ?? [])).json().catch(() => undefined);
    if (!document) throw new TypeError("no document");
    document.freshness.root = "00".repeat(32);
    return { ...answer, headers: new Headers({ "content-type": "application/json" }), body: [new TextEncoder().encode(JSON.stringify(document))] };
  };
  if (Array.fromAsync) await fails((await development({ transport: altered })).attest(), "attestation");
  const flipped = async (request) => {
    const answer = await byFetch(request);
    if (request.method === "GET") return answer;
    const parts = [];
    for await (const part of answer.body) parts.push(part);
    parts.at(-1)[parts.at(-1).length - 1] ^= 1;
    return { ...answer, body: parts };
  };
  await fails((await development({ transport: flipped })).infer({ image: one() }), "reply");
});

test("inputs that the model does not take are refused, inside the seal", async () => {
  const client = await development();
  await fails(client.infer({ other: one() }), "refused", /other|image/);
  await fails(client.infer({ image: new Tensor(new Float64Array(784), [1, 1, 28, 28]) }), "refused");
  await fails(client.infer({ image: one() }, { model: "none" }), "refused");
  assert.throws(() => new Tensor(new Float32Array(3), [2]), /expected 2 elements/);
  assert.throws(() => new Tensor([1, 2]), /expected a typed array/);
});

test("requests to the inner API, whole and as they come", async () => {
  const client = await development();
  const answer = await client.request("GET", "/v2");
  assert.equal(answer.status, 200);
  assert.match(answer.headers.get("content-type"), /application\/json/);
  assert.ok(JSON.parse(new TextDecoder().decode(answer.body)).name);
  assert.equal((await client.request("GET", "/none")).status, 404);
  const streamed = await client.stream("GET", "/v2");
  assert.equal(streamed.status, 200);
  assert.deepEqual(new Uint8Array(await new Response(streamed.body).arrayBuffer()), answer.body);
  assert.equal((await client.stream("GET", "/none")).status, 404);
  assert.equal(await client.ready(), true);
  assert.deepEqual((await client.models()).map(({ state }) => state), ["READY"]);
});

test("an upload says how far it is", async () => {
  const client = await development({ chunked: true });
  const seen = [];
  // The tensor is larger than what the model takes: what counts is that it is sealed and sent in pieces.
  const large = new Tensor(new Float32Array(3 << 20), [3 << 20]);
  await fails(client.infer({ image: large }, { onProgress: (progress) => seen.push(progress) }), "refused");
  assert.ok(seen.length > 100, `${seen.length} times`);
  assert.ok(seen.every(({ sent, total }, at) => sent <= total && (at === 0 || sent > seen[at - 1].sent)));
  assert.equal(seen.at(-1).sent, seen.at(-1).total);
  assert.ok(seen.at(-1).total > 12 << 20);
});

test("a call can be aborted, and others go on", async () => {
  const client = await development();
  await assert.rejects(client.attest({ signal: AbortSignal.abort() }), { name: "AbortError" });
  const abort = new AbortController();
  const held = await development({
    transport: (request) => new Promise((_, reject) => request.signal.addEventListener("abort", () => reject(request.signal.reason))),
  });
  const [first, second] = [held.attest({ signal: abort.signal }), held.attest({ signal: abort.signal })];
  abort.abort(new Error("enough"));
  await assert.rejects(first, /enough/);
  await assert.rejects(second, /enough/);
  // A transport that never answers ends in a timeout, and another client's calls go on.
  await fails((await development({ timeout: 50, transport: () => new Promise(() => {}) })).attest(), "timeout").catch((error) => {
    throw error;
  });
  assert.ok(await client.infer({ image: one() }));
});

test("no network is no answer", async () => {
  await fails((await connect("http://127.0.0.1:9", { allowDebug: true })).attest(), "transport");
  await fails(connect("ftp://host", { allowDebug: true }), "argument", /http/);
  await fails(connect(server.url, { allowDebug: true, retires: 1 }), "argument", /unknown option retires/);
});

test("options are an object, never an array of their values", () => {
  new Conversation(server.url, '{"allowDebug": true}').free();
  for (const options of ['["allow_debug = true"]', "[]", "null"]) {
    assert.throws(() => new Conversation(server.url, options), /options: .*expected struct/, options);
  }
});

test("types survive", () => {
  const cases = [
    [new Int8Array([-1, 2]), "int8"], [new BigInt64Array([-1n, 2n]), "int64"], [["a", "é"], "string"],
    [[true, false], "bool"], [new Uint16Array([0x3c00]), "uint16"],
  ];
  if (globalThis.Float16Array) cases.push([new Float16Array([0.5]), "float16"]);
  for (const [data, dtype] of cases) {
    const tensor = new Tensor(data);
    assert.equal(tensor.dtype, dtype);
    const back = Tensor.from(dtype, tensor.shape, Tensor.bytes(tensor).slice());
    assert.deepEqual(Array.from(back.data, Number.isInteger(data[0]) ? Number : (x) => x), Array.from(data, (x) => (typeof x === "boolean" ? Number(x) : x)));
  }
  assert.equal(new Tensor(new Uint16Array(2), [2], "bfloat16").dtype, "bfloat16");
  assert.deepEqual(Tensor.from("string", [1], Uint8Array.of(1, 0, 0, 0, 0xff)).data, [Uint8Array.of(0xff)]);
});

test("a language model answers whole and as it comes", async (context) => {
  const decoder = await startServer("--model-path", `${ROOT}/crates/confonnx-engine/tests/data/decoder.onnx`);
  context.after(() => decoder.stop());
  const client = await connect(decoder.url, { allowDebug: true });
  const parameters = { seed: 7, max_tokens: 20 };
  const whole = await client.chat("hello", parameters);
  assert.ok(whole.text.length > 0 && whole.usage.completion_tokens === 20, JSON.stringify(whole));
  for (const more of [{}, { pace_ms: 10 }, { model: "decoder" }]) {
    const said = [];
    const stream = client.chatStream([{ role: "user", content: "hello" }], { ...parameters, ...more });
    for (;;) {
      const { value, done } = await stream.next();
      if (done) {
        assert.deepEqual(value, whole);
        break;
      }
      said.push(value);
    }
    assert.equal(said.join(""), whole.text);
  }
  for (const ask of [(bad) => client.chat("hello", bad), (bad) => client.chatStream("hello", bad).next()]) {
    await assert.rejects(ask({ temprature: 1 }), (error) => error.kind === "refused" && error.status === 400 && /temprature/.test(error.message));
  }
  // One that is left gives the rest up, and the next is answered.
  for await (const token of client.chatStream("hello", { max_tokens: 400, logit_bias: { 301: -100 } })) {
    assert.ok(token);
    break;
  }
  assert.equal((await client.chat("hello", { max_tokens: 1 })).usage.completion_tokens, 1);
});

test("a chat that is cut off is not complete", async (context) => {
  const decoder = await startServer("--model-path", `${ROOT}/crates/confonnx-engine/tests/data/decoder.onnx`);
  context.after(() => decoder.stop());
  let cut = false;
  const transport = async (request) => {
    const answer = await byFetch(request);
    if (!cut || !request.pieces) return answer;
    async function* some() {
      let left = 4000;
      for await (const piece of answer.body) {
        yield piece.subarray(0, left);
        left -= piece.length;
        if (left <= 0) return;
      }
    }
    return { ...answer, body: some() };
  };
  const client = await connect(decoder.url, { allowDebug: true, transport, retries: 0 });
  await client.attest();
  cut = true;
  const said = [];
  await assert.rejects(async () => {
    for await (const token of client.chatStream("hello", { model: "decoder", seed: 7, max_tokens: 40 })) said.push(token);
  }, (error) => error instanceof ConfonnxError);
  assert.ok(said.length > 0, "what arrived was given");
});
