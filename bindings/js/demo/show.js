// What a person sees of checks, bytes and answers. Text is set as text: a server's words are never markup.

const MARKS = { passed: "✓ passed", failed: "✗ failed", undecided: "? undecided", notable: "! not judged", info: "– not judged" };

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("data-") || key === "scope") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children);
  return made;
}

/** A line that says how it stands: `passed`, `failed`, `undecided` or nothing. */
export function say(line, outcome, text) {
  line.className = `state ${outcome}`;
  line.textContent = text;
}

/** Every check of an attestation, with what was expected and found: what failed first, what nobody judges folded away. */
export function checks(place, all) {
  const order = ["failed", "undecided", "notable", "passed"];
  const judged = all.filter(({ outcome }) => order.includes(outcome));
  judged.sort((one, other) => order.indexOf(one.outcome) - order.indexOf(other.outcome));
  const rest = all.filter(({ outcome }) => !order.includes(outcome));
  const parts = [];
  if (judged.length) parts.push(table("Checks of the attestation", judged));
  if (rest.length) {
    const summary = element("summary", { textContent: `${rest.length} more that the server says of itself, for information` });
    parts.push(element("details", {}, summary, table("For information", rest)));
  }
  place.replaceChildren(...parts);
}

function table(title, all) {
  const columns = ["check", "outcome", "expected", "found"];
  const head = element("tr", {}, ...columns.map((text) => element("th", { scope: "col", textContent: text })));
  const rows = all.map(({ name, expected, found, outcome }) =>
    element(
      "tr",
      { "data-outcome": outcome },
      element("th", { scope: "row", textContent: name }),
      element("td", {}, element("span", { className: `mark ${outcome}`, textContent: MARKS[outcome] ?? outcome })),
      element("td", { "data-label": "expected", textContent: expected }),
      element("td", { "data-label": "found", textContent: found }),
    ),
  );
  const caption = element("caption", { className: "quiet", textContent: title });
  return element("table", {}, caption, element("thead", {}, head), element("tbody", {}, ...rows));
}

/** The first bytes, in hexadecimal. */
export function bytes(place, some, total) {
  const shown = Array.from(some.slice(0, SHOWN), (byte) => byte.toString(16).padStart(2, "0"));
  const more = total > shown.length ? ` … and ${(total - shown.length).toLocaleString("en")} more` : "";
  place.textContent = shown.join(" ") + more;
}

export const SHOWN = 256;

/** The share of each digit. */
export function bars(place, shares) {
  const most = shares.indexOf(Math.max(...shares));
  const rows = Array.from(shares, (share, digit) => {
    const bar = element("span", { className: "bar" });
    bar.style.width = `${share * 100}%`;
    const track = element("span", { className: "track" }, bar);
    track.setAttribute("aria-hidden", "true");
    const percent = element("span", { className: "share", textContent: `${(share * 100).toFixed(1)} %` });
    return element("li", { className: digit === most ? "most" : "" }, element("span", { textContent: String(digit) }), track, percent);
  });
  place.replaceChildren(...rows);
  return most;
}
