import { Conversation, Exchange, Inputs } from "../wasm/confonnx.js";
import { chat, chatStream } from "./chat.js";
import { Turn, drive } from "./drive.js";
import { ConfonnxError, told } from "./error.js";
import { Tensor } from "./tensor.js";
import { byFetch } from "./transport.js";

const DECIDED = [
  "policy", "enclaveHash", "enclaveSigningKey", "modelHash", "allowDebug", "kem", "aead", "chunked", "resumption",
  "relay", "maxReply", "retries", "timeout",
];
const HERE = ["authKey", "headers", "innerHeaders", "basic", "transport"];
const LISTS = ["enclaveHash", "enclaveSigningKey", "modelHash"];

/** A client of one server, which it verifies before it sends anything. Made by `connect`, which loads the WebAssembly. */
export class Client {
  #conversation;
  #turn = new Turn();
  #token;
  #headers;
  #timeout;
  #transport;

  constructor(url, options = {}) {
    for (const name of Object.keys(options)) {
      if (!DECIDED.includes(name) && !HERE.includes(name)) {
        throw new ConfonnxError({ kind: "argument", message: `unknown option ${name}: known are ${[...DECIDED, ...HERE].join(", ")}` });
      }
    }
    const decided = {};
    for (const name of DECIDED) {
      if (options[name] === undefined) continue;
      decided[name] = LISTS.includes(name) ? [options[name]].flat() : options[name];
    }
    decided.innerHeaders = pairs(options.innerHeaders);
    if (typeof options.authKey === "string") decided.authKey = options.authKey;
    if (typeof options.authKey === "function") this.#token = options.authKey;
    this.#conversation = told(() => new Conversation(String(url), JSON.stringify(decided)));
    this.#headers = new Headers(options.headers);
    if (options.basic) this.#headers.set("authorization", basic(options.basic));
    this.#timeout = options.timeout ?? 60_000;
    this.#transport = options.transport ?? byFetch;
  }

  /** The server's URL. */
  get url() {
    return this.#conversation.url;
  }

  /** Talks to another server from now on, which has to satisfy the same policy. */
  set url(url) {
    told(() => this.#conversation.setUrl(String(url)));
  }

  get keyRolloverCount() {
    return this.#conversation.keyRolloverCount;
  }

  get keyInvalidCount() {
    return this.#conversation.keyInvalidCount;
  }

  /** The proof on which the current key rests, if there is one. No network. */
  get proof() {
    const proof = this.#conversation.proof();
    return proof === undefined ? undefined : JSON.parse(proof);
  }

  /** The proof on which the current key rests; attests first when there is none. */
  async attest(options) {
    const exchange = Exchange.proof(this.#conversation);
    return this.#run(exchange, options, () => JSON.parse(exchange.takeProof()));
  }

  /** The server's attestation document as it is sent, not verified: for the nonce (64 hex digits), or its latest one. */
  async fetchDocument(nonce, options) {
    const exchange = told(() => Exchange.document(this.#conversation, nonce));
    return this.#run(exchange, options, () => exchange.takeDocument());
  }

  /** Runs a model on named tensors; gives the outputs by name. */
  async infer(inputs, options = {}) {
    const token = await this.#bearer();
    const exchange = told(() => {
      const tensors = new Inputs();
      for (const [name, given] of Object.entries(inputs)) {
        const tensor = given instanceof Tensor ? given : new Tensor(given);
        tensors.add(name, tensor.dtype, Float64Array.from(tensor.shape), Tensor.bytes(tensor));
      }
      return Exchange.infer(this.#conversation, options.model, text(options.version), tensors, options.outputs ?? [], token);
    });
    return this.#run(exchange, options, () => {
      const outputs = exchange.takeTensors();
      const found = {};
      for (let output = outputs.next(); output; output = outputs.next()) {
        const { name, dtype, shape } = output;
        // Never the prototype's setter, whatever a model calls its outputs.
        Object.defineProperty(found, name, {
          value: Tensor.from(dtype, shape, output.take()),
          enumerable: true, configurable: true, writable: true,
        });
        output.free();
      }
      outputs.free();
      return found;
    });
  }

  /** Inputs and outputs of a model. */
  async metadata(options = {}) {
    const token = await this.#bearer();
    const exchange = Exchange.metadata(this.#conversation, options.model, text(options.version), token);
    return this.#run(exchange, options, () => json(exchange.takeBody()));
  }

  /** The models of the server that the caller may use. */
  async models(options) {
    const body = new TextEncoder().encode("{}");
    return this.#inner("POST", "/v2/repository/index", [], body, options, (exchange) => json(exchange.takeBody()));
  }

  /** Whether the server says, sealed, that it is ready to infer. */
  async ready(options) {
    const { status } = await this.request("GET", "/v2/health/ready", options);
    return status === 200;
  }

  /** Any request to the inner API; its answer, whatever the status. */
  async request(method, path, options = {}) {
    const body = bytes(options.body);
    return this.#inner(method, path, pairs(options.headers).flat(), body, options, (exchange) => {
      const answer = exchange.takeAnswer();
      const { status, headers } = JSON.parse(answer.head);
      const found = { status, headers: new Headers(headers), body: answer.body };
      answer.free();
      return found;
    });
  }

  /** As `request`, but `body` is a ReadableStream of bytes, each of them authentic. It fails unless the answer was whole. */
  async stream(method, path, options = {}) {
    const token = await this.#bearer();
    const fields = pairs(options.headers).flat();
    const exchange = Exchange.request(this.#conversation, method, path, fields, bytes(options.body), true, token);
    const abort = new AbortController();
    return new Promise((resolve, reject) => {
      let controller;
      let given = 0;
      const start = (head) => {
        const { status, headers } = JSON.parse(head);
        const body = new ReadableStream({
          start(it) {
            controller = it;
          },
          cancel(reason) {
            abort.abort(reason);
          },
        });
        resolve({ status, headers: new Headers(headers), body });
      };
      const give = (piece) => {
        given += piece.length;
        if (piece.length) controller.enqueue(piece);
      };
      const onHead = () => {
        const head = controller ? undefined : exchange.streamedHead();
        if (head !== undefined) start(head);
        if (controller) give(exchange.takeStreamed());
      };
      this.#run(exchange, { ...options, abort, onHead }, () => {
        const answer = exchange.takeAnswer();
        if (!controller) start(answer.head);
        give(answer.body.subarray(given));
        answer.free();
        controller.close();
      }).catch((error) => (controller ? controller.error(error) : reject(error)));
    });
  }

  /** A language model's whole answer to `messages`: what the user says, or all that was said. */
  async chat(messages, parameters) {
    return chat(this, messages, parameters);
  }

  /** The same as it comes: `for await (const token of client.chatStream(…))`. One that is left gives the rest up. */
  chatStream(messages, parameters) {
    return chatStream(this, messages, parameters);
  }

  async #inner(method, path, fields, body, options, take) {
    const token = await this.#bearer();
    const exchange = Exchange.request(this.#conversation, method, path, fields, body, false, token);
    return this.#run(exchange, options, () => take(exchange));
  }

  async #bearer() {
    return this.#token ? await this.#token() : undefined;
  }

  async #run(exchange, options = {}, take) {
    const abort = options.abort ?? new AbortController();
    const stop = () => abort.abort(options.signal.reason);
    if (options.signal?.aborted) stop();
    options.signal?.addEventListener("abort", stop, { once: true });
    const message = `no answer from ${this.url} within ${this.#timeout} ms: is the server overloaded, or the timeout too short?`;
    let timer = setTimeout(() => abort.abort(new ConfonnxError({ kind: "timeout", message })), this.#timeout);
    const { onProgress, onHead } = options;
    try {
      await drive(exchange, {
        transport: this.#transport, headers: this.#headers, turn: this.#turn, signal: abort.signal, onProgress,
        // While an answer streams, the limit is on each of its pauses.
        onHead: onHead && (() => {
          clearTimeout(timer);
          timer = setTimeout(() => abort.abort(new ConfonnxError({ kind: "timeout", message })), this.#timeout);
          onHead();
        }),
      });
      return told(take);
    } catch (error) {
      throw abort.signal.aborted ? abort.signal.reason : error;
    } finally {
      clearTimeout(timer);
      options.signal?.removeEventListener("abort", stop);
      exchange.free();
      // The request that was given up may have been the one that attests.
      this.#turn.wake();
    }
  }
}

const text = (value) => (value === undefined ? undefined : String(value));
const json = (body) => JSON.parse(new TextDecoder().decode(body));
const pairs = (headers) => [...new Headers(headers)];

function bytes(body) {
  if (body === undefined || body === null) return new Uint8Array();
  if (typeof body === "string") return new TextEncoder().encode(body);
  if (ArrayBuffer.isView(body)) return new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
  if (body instanceof ArrayBuffer) return new Uint8Array(body);
  throw new ConfonnxError({ kind: "argument", message: "body: expected a string, an ArrayBuffer or a view of one" });
}

function basic({ user, password }) {
  const encoded = new TextEncoder().encode(`${user}:${password}`);
  return `Basic ${btoa(String.fromCharCode(...encoded))}`;
}
