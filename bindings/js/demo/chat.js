// The page of a chat: verifies a server, seals what is written to it, and shows the answer as it comes.

import { Client } from "../lib/browser.js";
import { $, busy, count, kept, loaded, onExpectations, served, settings, shownWire, wire, words } from "./common.js";
import { checks, element, say } from "./show.js";

let client, model, stop;
/** What was said so far and is whole. */
let messages = [];

/** The shackle of the padlock. */
const OPEN = "M5 7V4a3 3 0 0 1 5.8-1";
const SHUT = "M5 7V5a3 3 0 0 1 6 0v2";

/** The padlock says how the server stands, and opens into the verdict. */
function lock(state, text, open) {
  $("lock").querySelector("path").setAttribute("d", state === "passed" ? SHUT : OPEN);
  $("locked").textContent = text;
  $("padlock").className = `padlock ${state}`;
  if (open !== undefined) unfold(open);
}

function unfold(open) {
  $("padlock").setAttribute("aria-expanded", String(open));
  $("proof").hidden = !open;
}

function unverified() {
  client = model = undefined;
  messages = [];
  lock("", "Not verified: nothing is sent", true);
}

async function verify() {
  unverified();
  checks($("checks"), []);
  say($("verdict"), "", "Verifying…");
  try {
    await loaded();
    const made = new Client($("url").value, settings());
    proven(await made.attest());
    const { status, body } = await made.request("GET", "/v1/models");
    const names = status === 200 ? JSON.parse(new TextDecoder().decode(body)).data.map(({ id }) => id) : [];
    if (!names.length) throw new Error("the server tells of no model");
    client = made;
    model = names[0];
    $("message").focus();
  } catch (error) {
    refused(error);
  }
}

function proven(proof) {
  checks($("checks"), proof.checks);
  if (proof.tee === "insecure") {
    say($("verdict"), "undecided", "This is what you accept, and no TEE: nothing is confidential.");
    lock("undecided", "Development: nothing is confidential. Open for the checks", false);
  } else {
    say($("verdict"), "passed", `Verified: ${proof.tee}, enclave ${proof.enclaveHash}.`);
    lock("passed", `Verified: ${proof.tee}. Open for the checks`, false);
  }
}

function refused(error) {
  client = undefined;
  checks($("checks"), error.checks ?? []);
  say($("verdict"), "failed", `Nothing is sent to this server. ${words(error)}`);
  lock("failed", "Refused: nothing is sent", true);
}

/** A message in the log, and where its text goes. */
function said(who, text) {
  const content = element("p", { className: "said", textContent: text });
  const item = element("div", { "data-who": who }, element("strong", { textContent: who }), content);
  $("log").append(item);
  $("log").scrollTop = $("log").scrollHeight;
  return { item, content };
}

async function answer(text, place) {
  const parameters = { model, signal: (stop = new AbortController()).signal };
  if ($("pace").value) parameters.pace_ms = Number($("pace").value);
  const stream = client.chatStream([...messages, { role: "user", content: text }], parameters);
  for (;;) {
    const { value, done } = await stream.next();
    if (done) return value.finishReason;
    place.textContent += value;
    $("log").scrollTop = $("log").scrollHeight;
    shownWire();
  }
}

async function send() {
  const text = $("message").value.trim();
  if (!text) return;
  if (!client) await verify();
  if (!client) {
    say($("sent"), "failed", "Not sent: the server is not verified (above).");
    return;
  }
  said("You", text);
  $("message").value = "";
  const { item, content } = said(model, "");
  say($("sent"), "", "The answer comes…");
  $("stop").hidden = false;
  wire.seen = undefined;
  try {
    const finish = await answer(text, content);
    messages.push({ role: "user", content: text }, { role: "assistant", content: content.textContent });
    const whole = finish === "length" ? "The answer is as long as it may be" : "Answered";
    say($("sent"), "passed", `${whole}: ${count(wire.seen.sent)} sealed bytes left, ${count(wire.seen.length)} came back.`);
    proven(client.proof);
  } catch (error) {
    const stopped = stop?.signal.aborted;
    item.append(element("p", { className: "state failed", textContent: stopped ? "Stopped by you: not complete." : "Cut off: not complete." }));
    say($("sent"), "failed", stopped ? "Stopped: the model goes no further." : `No whole answer. ${words(error)}`);
    if (error.checks?.length || error.kind === "attestation") refused(error);
  } finally {
    $("stop").hidden = true;
    stop = undefined;
    shownWire();
    $("message").focus();
  }
}

served("what you write");
$("url").value = kept ? "" : location.origin;
$("padlock").addEventListener("click", () => unfold($("padlock").getAttribute("aria-expanded") !== "true"));
$("server").addEventListener("submit", (event) => {
  event.preventDefault();
  busy($("ask"), verify);
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  busy($("ask"), send);
});
$("stop").addEventListener("click", () => stop?.abort());
$("message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("ask").requestSubmit();
});
onExpectations(unverified);
