/**
 * `fetch` as transport. Whoever wants to know how an upload goes gets XMLHttpRequest where there is one: it alone tells.
 */
export function byFetch(request) {
  if (request.onProgress && request.pieces && typeof XMLHttpRequest === "function") return byXhr(request);
  return fetched(request);
}

async function fetched({ url, method, headers, signal, total, pieces, onProgress }) {
  const init = { method, headers, signal, cache: "no-store", credentials: "omit", redirect: "error", referrerPolicy: "no-referrer" };
  if (pieces) {
    if (streamsRequests()) {
      // The body is sealed as it is sent: one piece of it is in memory at a time.
      init.body = streamed(pieces, onProgress);
      init.duplex = "half";
      if (total <= WHOLE) init.body = collected(pieces, onProgress);
    } else {
      init.body = collected(pieces, onProgress);
    }
  }
  const response = await fetch(url, init);
  return { status: response.status, headers: response.headers, body: chunks(response) };
}

/** A body shorter than this is sent in one piece. */
const WHOLE = 1 << 20;

/** Node's fetch sends bodies as they come; browsers do so over HTTP/2 alone, and fail over HTTP/1.1. */
function streamsRequests() {
  return typeof process === "object" && process.versions?.node !== undefined && typeof window === "undefined";
}

function streamed(pieces, onProgress) {
  let sent = 0;
  return new ReadableStream({
    type: "bytes",
    pull(controller) {
      const { done, value } = pieces.next();
      if (done) {
        controller.close();
        return;
      }
      sent += value.length;
      controller.enqueue(value);
      onProgress?.(sent);
    },
  });
}

function collected(pieces, onProgress) {
  const body = new Blob([...pieces]);
  onProgress?.(body.size);
  return body;
}

async function* chunks(response) {
  if (!response.body) return;
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function byXhr({ url, method, headers, signal, pieces, onProgress }) {
  return new Promise((resolve, reject) => {
    const xhr = new XMLHttpRequest();
    xhr.open(method, url);
    xhr.responseType = "arraybuffer";
    headers.forEach((value, name) => xhr.setRequestHeader(name, value));
    xhr.upload.onprogress = ({ loaded }) => onProgress(loaded);
    const stop = () => xhr.abort();
    signal.addEventListener("abort", stop, { once: true });
    xhr.onload = () =>
      resolve({
        status: xhr.status,
        headers: { get: (name) => xhr.getResponseHeader(name) },
        body: [new Uint8Array(xhr.response)],
      });
    xhr.onerror = () => reject(new TypeError("the request failed"));
    xhr.onabort = () => reject(signal.reason ?? new TypeError("the request was aborted"));
    xhr.onloadend = () => signal.removeEventListener("abort", stop);
    xhr.send(new Blob([...pieces]));
  });
}
