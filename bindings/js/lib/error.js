/** What can go wrong. `kind` says what to do about it; no message carries tensor values, keys or tokens. */
export class ConfonnxError extends Error {
  /** @param {Record<string, unknown>} told */
  constructor(told, options) {
    super(String(told.message), options);
    this.name = "ConfonnxError";
    /** `argument`, `policy`, `attestation`, `refused`, `transport`, `timeout`, `reply` or `system`. */
    this.kind = told.kind;
    /** HTTP status of a refusal; of a sealed answer the inner one. */
    this.status = told.status ?? undefined;
    /** The server's code for a refusal, such as `queue-full`. */
    this.code = told.code ?? undefined;
    /** After how many seconds to try again, if the server said so. */
    this.retryAfter = told.retryAfter ?? undefined;
    /** Every check of the attestation that was made, when that is what failed. */
    this.checks = told.checks ?? [];
    /** Whether the evidence itself passed: then it is the policy that refused. */
    this.genuine = told.genuine ?? undefined;
  }
}

/** What the WebAssembly threw, as an error of ours. */
export function asError(thrown) {
  if (typeof thrown !== "string") return thrown;
  try {
    return new ConfonnxError(JSON.parse(thrown));
  } catch {
    return new ConfonnxError({ kind: "system", message: thrown });
  }
}

/** Runs `call`, whose errors are strings of JSON. */
export function told(call) {
  try {
    return call();
  } catch (thrown) {
    throw asError(thrown);
  }
}
