// Builds the demonstration pages, for digits and for a chat, into a folder: node demo/build.mjs FOLDER, after scripts/make-js.
//
// Two forms of each: files of which each names the next by its hash, for a server, and one file with everything in it, for
// whoever keeps it. Built twice from the same sources, they are the same bytes.

import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";

const HERE = fileURLToPath(new URL(".", import.meta.url));

const out = process.argv[2];
if (!out) {
  console.error("usage: node demo/build.mjs FOLDER");
  process.exit(2);
}

const read = (name) => readFile(path.join(HERE, name), "utf8");
const hash = (kind, bytes, as) => createHash(kind).update(bytes).digest(as);
const integrity = (bytes) => `sha384-${hash("sha384", bytes, "base64")}`;
const source = (text) => `'sha256-${hash("sha256", text, "base64")}'`;
/** Text inside of a script element. */
const inside = (text) => text.replaceAll("</", "<\\/").replaceAll("<!--", "<\\!--");

const style = await read("demo.css");
/** What both pages have, in the place of a comment of that name. */
const parts = { server: await read("server.html"), wire: await read("wire.html") };
const wasm = await readFile(path.join(HERE, "../wasm/confonnx_bg.wasm"));

/** What the page may do: `scripts` and `styles` are where these come from. Whom to ask is for the reader to say. */
const policy = (scripts, styles) =>
  `default-src 'none'; script-src ${scripts} 'wasm-unsafe-eval'; style-src ${styles}; connect-src 'self' http: https:; ` +
  "base-uri 'none'; form-action 'none'";
const guard = (scripts, styles) => `<meta http-equiv="Content-Security-Policy" content="${policy(scripts, styles)}">`;
const data = (id, text, type) => `<script id="${id}" type="${type}">${text}</script>`;

/** The files of the page `template`, whose script is `name`.js, with the other page at `other`. */
async function made(template, name, other) {
  const bundled = await build({
    entryPoints: [path.join(HERE, `${name}.js`)], bundle: true, write: false, format: "esm", target: "es2022", charset: "utf8",
    legalComments: "none", logLevel: "warning",
  });
  const script = bundled.outputFiles[0].text;
  let text = await read(template);
  for (const [part, content] of Object.entries(parts)) text = text.replace(`<!-- ${part} -->\n`, () => content);
  const page = (link, head, scripts) =>
    text.replace("<!-- other -->", () => link).replace("<!-- head -->", () => head).replace("<!-- scripts -->", () => scripts);
  const inline = inside(script);
  const offline = page(
    other.words,
    `${guard(source(inline), source(style))}\n<style>${style}</style>`,
    `${data("bundle", "{}", "application/json")}\n${data("wasm", wasm.toString("base64"), "text/plain")}\n<script type="module">${inline}</script>`,
  );
  const kept = `confonnx-${name}.html`;
  const bundle = { wasm: "confonnx.wasm", integrity: integrity(wasm), offline: { name: kept, sha256: hash("sha256", offline, "hex") } };
  const served = page(
    `<a href="${other.page}">${other.words}</a>`,
    `${guard("'self'", "'self'")}\n<link rel="stylesheet" href="demo.css" integrity="${integrity(style)}">`,
    `${data("bundle", inside(JSON.stringify(bundle)), "application/json")}\n` +
      `<script type="module" src="${name}.js" integrity="${integrity(script)}"></script>`,
  );
  return { [template]: served, [`${name}.js`]: script, [kept]: offline };
}

const files = {
  ...(await made("index.html", "demo", { page: "chat.html", words: "a page to chat" })),
  ...(await made("chat.html", "chat", { page: "./", words: "a page for digits" })),
  "demo.css": style, "confonnx.wasm": wasm,
};
await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
for (const [name, content] of Object.entries(files)) await writeFile(path.join(out, name), content);
const sums = Object.entries(files).map(([name, content]) => `${hash("sha256", content, "hex")}  ${name}\n`);
await writeFile(path.join(out, "SHA256SUMS"), sums.sort().join(""));
