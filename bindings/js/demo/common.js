// What the pages have in common: whom they trust, and a look at what goes and comes.

import { ConfonnxError, load } from "../lib/browser.js";
import { byFetch } from "../lib/transport.js";
import { SHOWN, bytes, checks, element, say } from "./show.js";

export const $ = (id) => document.getElementById(id);
export const count = (number) => number.toLocaleString("en");
const bundle = JSON.parse($("bundle").textContent);
/** Opened from a disk, so that nobody served it. */
export const kept = location.protocol === "file:";

/** What the last request looked like to others. */
export const wire = { seen: undefined };

/** `fetch`, with a look at what goes and comes. */
async function watched(request) {
  const { url, pieces } = request;
  if (!pieces) return byFetch(request);
  wire.seen = { url, type: request.headers.get("content-type"), left: new Uint8Array(), sent: 0, came: new Uint8Array(), length: 0 };
  const mine = wire.seen;
  function* noted() {
    for (const piece of pieces) {
      mine.left = joined(mine.left, piece);
      mine.sent += piece.length;
      yield piece;
    }
  }
  const answer = await byFetch({ ...request, pieces: noted() });
  async function* read() {
    for await (const piece of answer.body) {
      mine.came = joined(mine.came, piece);
      mine.length += piece.length;
      yield piece;
    }
  }
  return { status: answer.status, headers: answer.headers, body: read() };
}

/** As many bytes as are shown. */
function joined(first, more) {
  if (first.length >= SHOWN) return first;
  const all = new Uint8Array(Math.min(SHOWN, first.length + more.length));
  all.set(first);
  all.set(more.subarray(0, all.length - first.length), first.length);
  return all;
}

/** What others saw of the last request and its answer. */
export function shownWire() {
  const { seen } = wire;
  $("left-about").textContent = `What left this page: ${seen ? `${count(seen.sent)} bytes of ${seen.type} to ${seen.url}` : "nothing."}`;
  $("came-about").textContent = `What came back: ${seen ? `${count(seen.length)} bytes` : "nothing."}`;
  bytes($("left"), seen?.left ?? [], seen?.sent ?? 0);
  bytes($("came"), seen?.came ?? [], seen?.length ?? 0);
}

/** Runs `forget` when the reader expects something else of a server: what was found of it is no verdict any more. */
export function onExpectations(forget) {
  for (const id of ["url", "hash", "model-hash", "debug"]) {
    $(id).addEventListener("input", () => {
      forget();
      say($("verdict"), "", "");
      checks($("checks"), []);
    });
  }
}

let working = false;

/** One thing at a time, which `place` tells. Buttons stay as they are: one that is disabled loses the keyboard's focus. */
export async function busy(place, work) {
  if (working) return;
  working = true;
  place.setAttribute("aria-busy", "true");
  try {
    await work();
  } finally {
    working = false;
    place.removeAttribute("aria-busy");
  }
}

/** What a client of a page is to demand. */
export function settings() {
  const list = (id) => $(id).value.split(",").map((part) => part.trim()).filter(Boolean);
  const options = { transport: watched, retries: 1, maxReply: 64 << 20 };
  if (list("hash").length) options.enclaveHash = list("hash");
  if (list("model-hash").length) options.modelHash = list("model-hash");
  if ($("debug").checked) options.allowDebug = true;
  return options;
}

export function words(error) {
  if (!(error instanceof ConfonnxError)) return `This page failed: ${error.message ?? error}`;
  if (error.kind === "transport") return `No answer: ${error.message}. Is the network there, and does the server run?`;
  return error.message;
}

let loading;
/** Loads the WebAssembly, once. */
export function loaded() {
  loading ??= (async () => {
    const inline = document.getElementById("wasm");
    if (inline) await load(Uint8Array.from(atob(inline.textContent.trim()), (letter) => letter.charCodeAt(0)));
    else await load(await fetch(bundle.wasm, { integrity: bundle.integrity }));
  })();
  loading.catch(() => (loading = undefined));
  return loading;
}

/** Who served this page, and what that means for `what` is written in it. */
export function served(what) {
  const place = $("served");
  if (kept) {
    place.append("You opened this page from your own disk: nobody served it just now, and it loads nothing. What it shows is as good as the ",
      "file: compare its SHA-256 with the one that was released.");
    return;
  }
  place.append(`${location.origin} served this page and its script just now. Whoever holds that server`,
    location.protocol === "https:" ? "" : ", or the network between it and you (this is not HTTPS),",
    ` could have served a script that shows green and sends ${what} to somebody else. A page cannot vouch for itself. The way out: `);
  if (bundle.offline) {
    place.append(element("a", { href: bundle.offline.name, download: "", textContent: `keep this page (${bundle.offline.name})` }),
      ", see that its SHA-256 is the one that was released (this server says ", element("code", { textContent: bundle.offline.sha256 }),
      "), and open it from your disk; or serve the files yourself: each names the next one by its hash.");
  }
}
