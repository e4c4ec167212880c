// The page: verifies a server, seals a drawing to it, and shows what others get to see of that.

import { Client, ConfonnxError, Tensor, load } from "../lib/browser.js";
import { byFetch } from "../lib/transport.js";
import { Drawing, SIDE, paint } from "./drawing.js";
import { SHOWN, bars, bytes, checks, element, say } from "./show.js";

const $ = (id) => document.getElementById(id);
const count = (number) => number.toLocaleString("en");
const bundle = JSON.parse($("bundle").textContent);
/** Opened from a disk, so that nobody served it. */
const kept = location.protocol === "file:";

const drawing = new Drawing($("drawing"), (words) => ($("pen").textContent = words));
let client;
/** What the last request looked like to others. */
let seen;

/** `fetch`, with a look at what goes and comes. */
async function watched(request) {
  const { url, pieces } = request;
  if (!pieces) return byFetch(request);
  seen = { url, type: request.headers.get("content-type"), total: request.total, left: new Uint8Array(), came: new Uint8Array(), length: 0 };
  const mine = seen;
  function* noted() {
    for (const piece of pieces) {
      mine.left = joined(mine.left, piece);
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

function settings() {
  const list = (id) => $(id).value.split(",").map((part) => part.trim()).filter(Boolean);
  const options = { transport: watched, retries: 1, maxReply: 64 << 20 };
  if (list("hash").length) options.enclaveHash = list("hash");
  if (list("model-hash").length) options.modelHash = list("model-hash");
  if ($("debug").checked) options.allowDebug = true;
  return options;
}

async function verify() {
  say($("verdict"), "", "Verifying…");
  checks($("checks"), []);
  client = undefined;
  try {
    await loaded();
    const made = new Client($("url").value, settings());
    const proof = await made.attest();
    client = made;
    proven(proof);
    return true;
  } catch (error) {
    refused(error);
    return false;
  }
}

function proven(proof) {
  checks($("checks"), proof.checks);
  const real = proof.tee !== "insecure";
  const what = real ? `Verified: ${proof.tee}, enclave ${proof.enclaveHash}.` : "This is what you accept, and no TEE: nothing is confidential.";
  say($("verdict"), real ? "passed" : "undecided", what);
}

function refused(error) {
  checks($("checks"), error.checks ?? []);
  say($("verdict"), "failed", `Nothing is sent to this server. ${words(error)}`);
}

function words(error) {
  if (!(error instanceof ConfonnxError)) return `This page failed: ${error.message ?? error}`;
  if (error.kind === "transport") return `No answer: ${error.message}. Is the network there, and does the server run?`;
  return error.message;
}

async function send() {
  if (drawing.empty) {
    say($("sent"), "failed", "The drawing is empty: draw a digit first.");
    return;
  }
  if (!client && !(await verify())) {
    say($("sent"), "failed", "Not sent: the server is not verified (above).");
    return;
  }
  const copies = Math.min(20_000, Math.max(1, Math.round(Number($("copies").value)) || 1));
  const image = drawing.normalised();
  const all = new Float32Array(image.length * copies);
  for (let at = 0; at < copies; at++) all.set(image, at * image.length);
  say($("sent"), "", "Sealing and sending…");
  const progress = $("progress");
  progress.hidden = copies < 100;
  const options = copies < 100 ? {} : { onProgress: ({ sent, total }) => (progress.value = sent / total) };
  seen = undefined;
  const renewed = client.keyInvalidCount;
  try {
    const [scores] = Object.values(await client.infer({ image: new Tensor(all, [copies, 1, SIDE, SIDE]) }, options));
    const digit = bars($("bars"), scores.data.subarray(0, 10));
    $("answer").textContent = `It is a ${digit}, with ${(scores.data[digit] * 100).toFixed(1)} %.`;
    const again = client.keyInvalidCount > renewed ? " The server's keys were new, so it was verified again before." : "";
    say($("sent"), "passed", `Answered: ${count(seen.total)} sealed bytes left, ${count(seen.length)} came back.${again}`);
    proven(client.proof);
  } catch (error) {
    say($("sent"), "failed", `No answer. ${words(error)}`);
    // What was a trusted server is none any more, or its key cannot be used.
    if (error.checks?.length || error.kind === "attestation") refused(error);
  } finally {
    progress.hidden = true;
    shown(image, copies);
  }
}

/** What left beside what it hides. */
function shown(image, copies) {
  paint($("hidden"), image);
  const times = copies > 1 ? `, ${count(copies)} times` : "";
  $("hidden").setAttribute("aria-label", `The drawing${times}`);
  $("numbers").textContent = Array.from(image.subarray(10 * SIDE, 12 * SIDE), (point) => point.toFixed(2)).join(" ");
  if (!seen) {
    $("left-about").textContent = "What left this page: nothing.";
    $("came-about").textContent = "What came back: nothing.";
    $("left").textContent = $("came").textContent = "";
    return;
  }
  $("left-about").textContent = `What left this page: ${count(seen.total)} bytes of ${seen.type} to ${seen.url}`;
  bytes($("left"), seen.left, seen.total);
  $("came-about").textContent = `What came back: ${count(seen.length)} bytes`;
  bytes($("came"), seen.came, seen.length);
}

let loading;
function loaded() {
  loading ??= (async () => {
    const inline = document.getElementById("wasm");
    if (inline) await load(Uint8Array.from(atob(inline.textContent.trim()), (letter) => letter.charCodeAt(0)));
    else await load(await fetch(bundle.wasm, { integrity: bundle.integrity }));
  })();
  loading.catch(() => (loading = undefined));
  return loading;
}

/** Who served this page, and what that means. */
function served() {
  const place = $("served");
  if (kept) {
    place.append("You opened this page from your own disk: nobody served it just now, and it loads nothing. What it shows is as good as the ",
      "file: compare its SHA-256 with the one that was released.");
    return;
  }
  place.append(`${location.origin} served this page and its script just now. Whoever holds that server`,
    location.protocol === "https:" ? "" : ", or the network between it and you (this is not HTTPS),",
    " could have served a script that shows green and sends your drawing to somebody else. A page cannot vouch for itself. The way out: ");
  if (bundle.offline) {
    place.append(element("a", { href: bundle.offline.name, download: "", textContent: `keep this page (${bundle.offline.name})` }),
      ", see that its SHA-256 is the one that was released (this server says ", element("code", { textContent: bundle.offline.sha256 }),
      "), and open it from your disk; or serve the files yourself: each names the next one by its hash.");
  }
}

served();
$("url").value = kept ? "" : location.origin;
$("server").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(verify);
});
$("clear").addEventListener("click", () => drawing.clear());
$("example").addEventListener("click", () => drawing.example());
$("send").addEventListener("click", () => busy(send));
for (const id of ["url", "hash", "model-hash", "debug"]) {
  $(id).addEventListener("input", () => {
    client = undefined;
    say($("verdict"), "", "");
    checks($("checks"), []);
  });
}

let working = false;

/** One thing at a time. Buttons stay as they are: one that is disabled loses the keyboard's focus. */
async function busy(work) {
  if (working) return;
  working = true;
  document.querySelector("main").setAttribute("aria-busy", "true");
  try {
    await work();
  } finally {
    working = false;
    document.querySelector("main").removeAttribute("aria-busy");
  }
}
