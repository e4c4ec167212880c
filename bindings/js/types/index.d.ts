/** Attested client for confonnx servers: verifies the TEE here, then seals requests to it. */

/** NumPy's names of the types. */
export type DataType =
  | "bool" | "uint8" | "uint16" | "uint32" | "uint64" | "int8" | "int16" | "int32" | "int64"
  | "float16" | "bfloat16" | "float32" | "float64" | "string";

export type TensorData =
  | Uint8Array | Uint8ClampedArray | Uint16Array | Uint32Array | BigUint64Array
  | Int8Array | Int16Array | Int32Array | BigInt64Array | Float32Array | Float64Array
  | readonly string[] | readonly boolean[] | readonly number[] | readonly bigint[]
  | readonly (string | Uint8Array)[] | ArrayBufferView;

/** Numbers or strings, and how they are arranged. */
export class Tensor {
  /**
   * @param data A typed array, or an array of strings or booleans; of plain numbers with `dtype`.
   * @param shape Lengths, outermost first; one dimension if none is given.
   * @param dtype Where the array does not say it.
   */
  constructor(data: TensorData, shape?: Iterable<number>, dtype?: DataType);
  /**
   * A typed array of the type (`bool`: Uint8Array; `float16`: Float16Array where there is one, else bits in a Uint16Array;
   * `bfloat16`: bits in a Uint16Array), or strings, of which those that are no UTF-8 are bytes.
   */
  readonly data: any;
  readonly dtype: DataType;
  readonly shape: number[];
}

/** One check of an attestation. */
export interface Check {
  /** `verify`: is the evidence genuine? `appraise`: is what it proves what was asked for? */
  readonly step: "verify" | "appraise";
  readonly name: string;
  readonly expected: string;
  readonly found: string;
  /** `info`: nothing was expected; `notable`: nothing was expected of a setting that is not as it is by default. */
  readonly outcome: "passed" | "failed" | "undecided" | "info" | "notable";
}

/** What a server proved. */
export interface Proof {
  readonly tee: string;
  readonly enclaveHash: string;
  readonly claims: Record<string, any>;
  readonly checks: readonly Check[];
}

export type ErrorKind =
  | "argument" | "policy" | "attestation" | "refused" | "transport" | "timeout" | "reply" | "system";

/** What can go wrong. No message carries tensor values, keys or tokens. */
export class ConfonnxError extends Error {
  readonly kind: ErrorKind;
  /** HTTP status of a refusal; of a sealed answer the inner one. */
  readonly status?: number;
  /** The server's code for a refusal, such as `queue-full`. */
  readonly code?: string;
  /** Seconds. */
  readonly retryAfter?: number;
  /** Every check that was made, when attestation is what failed. */
  readonly checks: readonly Check[];
  /** Whether the evidence itself passed: then it is the policy that refused. */
  readonly genuine?: boolean;
}

/** What a transport is asked to send. */
export interface TransportRequest {
  readonly url: string;
  readonly method: "GET" | "POST";
  readonly headers: Headers;
  readonly signal: AbortSignal;
  /** Bytes of the body. */
  readonly total: number;
  /** The body, sealed as it is asked for. */
  readonly pieces?: Iterable<Uint8Array>;
  readonly onProgress?: (sent: number) => void;
}

/** What a transport gives back. */
export interface TransportAnswer {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
  readonly body: AsyncIterable<Uint8Array> | Iterable<Uint8Array>;
}

export interface ClientOptions {
  /** `strict`, `cloud`, or the text of a policy file. */
  policy?: string;
  /** The measurement that the TEE must have: hex. */
  enclaveHash?: string | readonly string[];
  /** The public key that must have signed the program: PEM. */
  enclaveSigningKey?: string | readonly string[];
  /** The hash of the model that is called: hex, or `NAME=HEX`. */
  modelHash?: string | readonly string[];
  /** Accepts debug mode and the insecure TEE, without confidentiality: for development. */
  allowDebug?: boolean;
  /** Bearer token, sealed; or a function that gives one for each call. */
  authKey?: string | (() => string | Promise<string>);
  /** More header fields of requests, inside the seal. */
  innerHeaders?: HeadersInit;
  /** More header fields of requests, outside the seal, for gateways before the server. */
  headers?: HeadersInit;
  /** User and password for HTTP Basic, outside the seal. */
  basic?: { user: string; password: string };
  kem?: "x-wing" | "x25519" | "p-256";
  aead?: "aes-256-gcm" | "aes-128-gcm" | "chacha20-poly1305";
  /** Seals requests in chunks, so that large ones need not be in memory twice. */
  chunked?: boolean;
  /** Resume: later requests go without key encapsulation. On by default. */
  resumption?: boolean;
  /** URL of an Oblivious HTTP relay that takes the sealed requests. */
  relay?: string;
  /** Bytes of the longest reply. */
  maxReply?: number;
  /** How often to repeat a call that is safe to repeat. */
  retries?: number;
  /** Milliseconds for one call. */
  timeout?: number;
  /** The function that sends requests, in place of `fetch`. */
  transport?: (request: TransportRequest) => Promise<TransportAnswer>;
}

export interface CallOptions {
  signal?: AbortSignal;
  /** How many bytes of the sealed body are on their way. */
  onProgress?: (progress: { sent: number; total: number }) => void;
}

export interface ModelOptions extends CallOptions {
  /** The model's name; needed where the server has several. */
  model?: string;
  version?: string | number;
}

export interface InferOptions extends ModelOptions {
  /** Names of the outputs wanted; all when none is given. */
  outputs?: string[];
}

export interface RequestOptions extends CallOptions {
  headers?: HeadersInit;
  body?: string | ArrayBuffer | ArrayBufferView;
}

export interface TensorMetadata {
  name: string;
  datatype: string;
  shape: number[];
}

export interface ModelMetadata {
  name: string;
  versions?: string[];
  platform?: string;
  inputs: TensorMetadata[];
  outputs: TensorMetadata[];
}

/** A message of a chat. */
export interface ChatMessage {
  role: "system" | "user" | "assistant";
  content: string;
}

/** How to answer: the parameters of OpenAI's API, as they are called there, such as `temperature`, `seed` and `max_tokens`. */
export interface ChatParameters {
  /** The model's name; needed where the server has several. */
  model?: string;
  signal?: AbortSignal;
  /** Milliseconds between pieces of one size, if they are to come at fixed instants. */
  pace_ms?: number;
  [parameter: string]: unknown;
}

export interface ChatAnswer {
  text: string;
  /** `stop`, or `length` when a limit cut it short. */
  finishReason: string | undefined;
  usage: { prompt_tokens: number; completion_tokens: number; total_tokens: number } | undefined;
}

/** A client of one server, which it verifies before it sends anything. */
export class Client {
  /** To be called after `load`. */
  constructor(url: string | URL, options?: ClientOptions);
  url: string;
  readonly proof: Proof | undefined;
  readonly keyRolloverCount: number;
  readonly keyInvalidCount: number;
  attest(options?: CallOptions): Promise<Proof>;
  fetchDocument(nonce?: string, options?: CallOptions): Promise<Uint8Array>;
  infer(inputs: Record<string, Tensor | TensorData>, options?: InferOptions): Promise<Record<string, Tensor>>;
  metadata(options?: ModelOptions): Promise<ModelMetadata>;
  models(options?: CallOptions): Promise<{ name: string; version?: string; state: string; reason?: string }[]>;
  ready(options?: CallOptions): Promise<boolean>;
  chat(messages: string | ChatMessage[], parameters?: ChatParameters): Promise<ChatAnswer>;
  chatStream(messages: string | ChatMessage[], parameters?: ChatParameters): AsyncGenerator<string, ChatAnswer>;
  request(method: string, path: string, options?: RequestOptions): Promise<{ status: number; headers: Headers; body: Uint8Array }>;
  stream(method: string, path: string, options?: RequestOptions): Promise<{ status: number; headers: Headers; body: ReadableStream<Uint8Array> }>;
}

/** Loads the WebAssembly, once: from the file in the package, or from what is given. */
export function load(source?: URL | string | Response | BufferSource | WebAssembly.Module): Promise<void>;

/** A client of the server at `url`, which is not asked before the first call. The WebAssembly is loaded if it was not yet. */
export function connect(url: string | URL, options?: ClientOptions): Promise<Client>;
