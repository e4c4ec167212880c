import { ConfonnxError, asError, told } from "./error.js";

/**
 * Does what an exchange asks for, until it is done: the only loop there is. `transport` sends; `turn` wakes those who wait for
 * another call to attest.
 */
export async function drive(exchange, { transport, headers, turn, signal, onProgress, onHead }) {
  for (;;) {
    signal.throwIfAborted();
    switch (told(() => exchange.step(Date.now(), performance.now()))) {
      case "done":
        turn.wake();
        return;
      case "wait":
        await pause(exchange.wait, signal);
        break;
      case "attestation":
        await turn.next(signal);
        break;
      case "get":
        await send(exchange, "GET", { transport, headers, signal, turn });
        break;
      default:
        await send(exchange, "POST", { transport, headers, signal, turn, onProgress, onHead });
    }
  }
}

async function send(exchange, method, { transport, headers, signal, turn, onProgress, onHead }) {
  const total = exchange.remaining;
  const fields = new Headers(exchange.relayed ? undefined : headers);
  fields.set("accept", exchange.accept);
  if (exchange.contentType) fields.set("content-type", exchange.contentType);
  const request = {
    url: exchange.url,
    method,
    headers: fields,
    signal,
    total,
    pieces: method === "POST" ? pieces(exchange) : undefined,
    onProgress: onProgress && ((sent) => onProgress({ sent, total })),
  };
  let answered = false;
  try {
    const answer = await orAborted(transport(request), signal);
    answered = true;
    const length = answer.headers.get("content-length");
    exchange.head(
      answer.status,
      answer.headers.get("content-type") ?? undefined,
      answer.headers.get("retry-after") ?? undefined,
      length === null ? undefined : Number(length),
    );
    const body = answer.body[Symbol.asyncIterator]?.() ?? answer.body[Symbol.iterator]();
    try {
      for (;;) {
        const { done, value } = await orAborted(body.next(), signal);
        if (done) break;
        const more = exchange.data(value);
        onHead?.();
        if (!more) break;
      }
    } finally {
      // Nobody waits for the end of the answer's iterator: of an aborted one it may never come.
      Promise.resolve(body.return?.()).catch(() => {});
    }
  } catch (thrown) {
    const error = asError(thrown);
    if (signal.aborted || error instanceof ConfonnxError) throw error;
    const cause = error.cause?.message ? `${error.message}: ${error.cause.message}` : String(error.message ?? error);
    // A page is not told how far its request came: the server may have got it.
    exchange.failed(cause, answered || method === "POST", Date.now(), performance.now());
    turn.wake();
    return;
  }
  exchange.end(Date.now(), performance.now());
  turn.wake();
}

/** The body, sealed piece by piece as it is asked for. */
function* pieces(exchange) {
  for (;;) {
    const piece = told(() => exchange.piece());
    if (piece === undefined) return;
    yield piece;
  }
}

/** Calls that wait for another one to attest. */
export class Turn {
  #wake;
  #promise;

  constructor() {
    this.wake();
  }

  wake() {
    this.#wake?.();
    this.#promise = new Promise((resolve) => {
      this.#wake = resolve;
    });
  }

  next(signal) {
    return orAborted(this.#promise, signal);
  }
}

function pause(milliseconds, signal) {
  let timer;
  const over = new Promise((resolve) => {
    timer = setTimeout(resolve, milliseconds);
  });
  return orAborted(over, signal).finally(() => clearTimeout(timer));
}

async function orAborted(promise, signal) {
  let stop;
  const aborted = new Promise((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener("abort", stop);
  }
}
