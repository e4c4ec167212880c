"use strict";

const WORDS = { passed: "✓ passed", failed: "✗ failed", undecided: "? undecided", info: "not asked for" };
let before = null;

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 120) return `${s} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} days`;
}

function checks(list, caption) {
  const rows = list.map((check) =>
    make("tr", {},
      make("th", { scope: "row" }, check.name),
      make("td", {}, make("span", { class: `state ${check.outcome}` }, WORDS[check.outcome] ?? check.outcome)),
      make("td", { "data-label": "expected" }, make("code", {}, check.expected)),
      make("td", { "data-label": "found" }, make("code", {}, check.found))));
  const titles = ["Check", "Outcome", "Expected", "Found"].map((title) => make("th", { scope: "col" }, title));
  return make("table", { class: "checks" },
    make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...titles)),
    make("tbody", {}, ...rows));
}

function facts(pairs) {
  return make("dl", {}, ...pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function server(one, now) {
  const { evidence, fault } = one;
  // A fault after which nothing is held, or one of the last minute.
  const refused = !evidence && fault;
  const standIn = evidence?.tee === "insecure";
  const word = standIn ? ["failed", "✗ no TEE: nothing is confidential"] : evidence ? ["passed", "✓ verified"] : refused ? ["failed", "✗ refused"] : ["undecided", "not asked yet"];
  const parts = [make("header", {},
    make("h3", {}, one.name),
    make("span", { class: `state ${word[0]}` }, word[1]),
    make("span", { class: "quiet" }, one.url))];
  if (evidence) {
    const key = evidence.keys[0];
    parts.push(facts([
      ["Evidence", `${evidence.tee}, made ${duration(now - evidence.issued_at)} ago`],
      ["Program", make("code", {}, typeof evidence.enclave_hash === "string" ? evidence.enclave_hash : JSON.stringify(evidence.enclave_hash))],
      ["Software", `confonnx-server ${evidence.build}, ${evidence.runtime}`],
      ["Keys", key ? `${evidence.keys.length}; the current one (${key.kem}) ends in ${duration(key.not_after - now)}, is accepted for ${duration(key.accepted_until - now)}` : "none"],
      ["Renewed", `${one.rollovers} times as the server changed its keys, ${one.unknown_keys} times as it no longer knew one`],
      ["Models", evidence.models.map((model) => `${model.name} ${model.version}`).join(", ") || "none"],
    ]));
    const count = (outcome) => evidence.checks.filter((check) => check.outcome === outcome).length;
    const details = make("details", { "data-name": one.name },
      make("summary", {}, `${count("passed")} checks passed, ${count("info")} that the policy does not ask for`),
      checks(evidence.checks, "What the evidence was compared with"));
    parts.push(details);
  }
  if (fault) {
    parts.push(make("p", {}, make("strong", {}, evidence ? "Latest refusal or fault: " : "Nothing is sent: "),
      `${fault.kind}, ${duration(now - fault.at)} ago`));
    if (fault.checks.length) parts.push(checks(fault.checks, "What did not fit"));
    else parts.push(make("p", { class: "quiet" }, fault.text));
  }
  const counted = Object.entries(one.faults).map(([kind, count]) => `${kind} ${count}`);
  if (counted.length) parts.push(make("p", { class: "quiet" }, `Without an answer so far: ${counted.join(", ")}`));
  return make("article", {}, ...parts);
}

function model(one, seconds) {
  const was = before?.models.find((old) => old.name === one.name && old.version === one.version);
  const more = was ? one.success - was.success : 0;
  const rate = was && seconds > 0 ? (more / seconds).toFixed(1) : "–";
  const ns = more > 0 ? (one.success_ns - was.success_ns) / more : one.success ? one.success_ns / one.success : 0;
  const mean = ns ? `${(ns / 1e6).toFixed(2)} ms` : "–";
  const name = one.name ? `${one.name} ${one.version}` : "(no model of a verified server)";
  return make("tr", {}, make("th", { scope: "row" }, name),
    ...[rate, mean, one.success, one.fail, one.pending].map((value) => make("td", {}, String(value))));
}

async function look() {
  const about = document.getElementById("about");
  try {
    const answer = await fetch("/ui/status.json", { cache: "no-store" });
    const status = await answer.json();
    status.at = performance.now();
    const now = status.now;
    about.textContent = `Version ${status.version}, running for ${duration(now - status.started)}.`;
    const servers = document.getElementById("servers");
    const open = new Set([...servers.querySelectorAll("details[open]")].map((details) => details.dataset.name));
    const inside = servers.contains(document.activeElement) && document.activeElement.closest("details")?.dataset.name;
    servers.replaceChildren(...status.servers.map((one) => server(one, now)));
    for (const details of servers.querySelectorAll("details")) {
      details.open = open.has(details.dataset.name);
      if (inside === details.dataset.name) details.querySelector("summary").focus();
    }
    const rows = status.models.map((one) => model(one, before ? (status.at - before.at) / 1000 : 0));
    const table = document.getElementById("models");
    table.tBodies[0].replaceChildren(...rows);
    table.hidden = rows.length === 0;
    document.getElementById("no-models").hidden = rows.length > 0;
    before = status;
  } catch {
    about.textContent = "The proxy does not answer: what is below is of before.";
  }
  setTimeout(look, 2000);
}

look();
