// A real server with the digits model, and the files that pages load.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import net from "node:net";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const PACKAGE = fileURLToPath(new URL("..", import.meta.url));

export async function freePort() {
  const probe = net.createServer();
  probe.listen(0, "127.0.0.1");
  await once(probe, "listening");
  const { port } = probe.address();
  probe.close();
  return port;
}

/** Starts `CONFONNX_SERVER`; `stop` ends it. */
export async function startServer(...flags) {
  return startServerAt(await freePort(), ...flags);
}

/** The same, on a port. */
export async function startServerAt(port, ...flags) {
  const executable = process.env.CONFONNX_SERVER;
  if (!executable) throw new Error("CONFONNX_SERVER is not set: run `make test-platforms`");
  const model = flags.includes("--model-path") ? [] : ["--model-path", `${ROOT}/examples/digits/digits.onnx`];
  const server = spawn(
    executable,
    [...model, "--address", "127.0.0.1", "--http-port", String(port),
      "--admin-port", "0", "--debug", ...flags],
    { stdio: ["ignore", "pipe", "pipe"], cwd: ROOT },
  );
  let log = "";
  server.stdout.on("data", (text) => (log += text));
  server.stderr.on("data", (text) => (log += text));
  const url = `http://127.0.0.1:${port}`;
  for (let tries = 0; ; tries++) {
    if (server.exitCode !== null) throw new Error(`the server stopped:\n${log}`);
    const answer = await fetch(url).catch(() => undefined);
    if (answer && (await answer.text()) === "Healthy") break;
    if (tries > 600) throw new Error(`the server is not healthy:\n${log}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const stop = async () => {
    const stopped = once(server, "exit");
    server.kill("SIGTERM");
    await stopped;
  };
  return { url, stop };
}

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json" };

/** Serves the package's folder, every answer with the policy `csp`; `extra` are further files. */
export async function startFiles(csp, extra = {}) {
  const server = createServer(async (request, response) => {
    const name = new URL(request.url, "http://localhost").pathname;
    try {
      const body = extra[name] ?? (await readFile(path.join(PACKAGE, path.normalize(name))));
      response.writeHead(200, { "content-type": TYPES[path.extname(name)] ?? "text/plain", "content-security-policy": csp() });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => server.close() };
}
