// The page: verifies a server, seals a drawing to it, and shows what others get to see of that.

import { Client, Tensor } from "../lib/browser.js";
import { $, busy, count, kept, loaded, onExpectations, served, settings, shownWire, wire, words } from "./common.js";
import { Drawing, SIDE, paint } from "./drawing.js";
import { bars, checks, say } from "./show.js";

const drawing = new Drawing($("drawing"), (words) => ($("pen").textContent = words));
const MAIN = document.querySelector("main");
let client;

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
  wire.seen = undefined;
  const renewed = client.keyInvalidCount;
  try {
    const [scores] = Object.values(await client.infer({ image: new Tensor(all, [copies, 1, SIDE, SIDE]) }, options));
    const digit = bars($("bars"), scores.data.subarray(0, 10));
    $("answer").textContent = `It is a ${digit}, with ${(scores.data[digit] * 100).toFixed(1)} %.`;
    const again = client.keyInvalidCount > renewed ? " The server's keys were new, so it was verified again before." : "";
    say($("sent"), "passed", `Answered: ${count(wire.seen.sent)} sealed bytes left, ${count(wire.seen.length)} came back.${again}`);
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
  shownWire();
}

served("your drawing");
$("url").value = kept ? "" : location.origin;
$("server").addEventListener("submit", (event) => {
  event.preventDefault();
  busy(MAIN, verify);
});
$("clear").addEventListener("click", () => drawing.clear());
$("example").addEventListener("click", () => drawing.example());
$("send").addEventListener("click", () => busy(MAIN, send));
onExpectations(() => (client = undefined));
