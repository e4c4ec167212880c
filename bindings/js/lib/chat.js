import { ConfonnxError } from "./error.js";

// Answers of language models, over a client's sealed requests.

const PATH = "/v1/chat/completions";

/** The whole answer. */
export async function chat(client, messages, parameters = {}) {
  const { body, options } = await asked(client, messages, parameters, false);
  const reply = await client.request("POST", PATH, { ...options, body });
  const answer = read(reply.body);
  if (reply.status !== 200) throw refused(reply.status, answer);
  const [choice] = answer.choices ?? [];
  if (typeof choice?.message?.content !== "string") throw malformed();
  return { text: choice.message.content, finishReason: choice.finish_reason, usage: answer.usage };
}

/** The answer as it comes: a loop that ends without an error has seen all of it. It returns what `chat` does. */
export async function* chatStream(client, messages, parameters = {}) {
  const abort = new AbortController();
  const { body, options } = await asked(client, messages, parameters, true);
  const stop = () => abort.abort(options.signal.reason);
  if (options.signal?.aborted) stop();
  options.signal?.addEventListener("abort", stop, { once: true });
  let ended = false;
  try {
    const reply = await client.stream("POST", PATH, { ...options, body, signal: abort.signal });
    if (reply.status !== 200) throw refused(reply.status, read(new Uint8Array(await new Response(reply.body).arrayBuffer())));
    const answer = { text: "", finishReason: undefined, usage: undefined };
    for await (const data of events(reply.body)) {
      if (data === "[DONE]") {
        ended = true;
        continue;
      }
      const event = json(data);
      if (event.error) throw refused(undefined, event);
      const [choice] = event.choices ?? [];
      answer.usage = event.usage ?? answer.usage;
      answer.finishReason = choice?.finish_reason ?? answer.finishReason;
      const more = choice?.delta?.content;
      if (more) {
        answer.text += more;
        yield more;
      }
    }
    if (!ended) throw new ConfonnxError({ kind: "reply", message: "the answer ends before its end: it is not complete" });
    return answer;
  } finally {
    // Whoever leaves the loop gives the rest up.
    if (!ended) abort.abort();
    options.signal?.removeEventListener("abort", stop);
  }
}

async function asked(client, messages, parameters, stream) {
  const { model, signal, ...rest } = parameters;
  const said = typeof messages === "string" ? [{ role: "user", content: messages }] : messages;
  const body = { model: model ?? (await onlyModel(client, signal)), messages: said, ...rest, stream };
  if (stream) body.stream_options = { include_usage: true };
  return { body: JSON.stringify(body), options: { headers: { "content-type": "application/json" }, signal } };
}

async function onlyModel(client, signal) {
  const reply = await client.request("GET", "/v1/models", { signal });
  const found = read(reply.body);
  if (reply.status !== 200) throw refused(reply.status, found);
  const names = (found.data ?? []).map(({ id }) => id);
  if (names.length === 1) return names[0];
  const message = `the server has ${names.length} models (${names.join(", ")}); name one with model`;
  throw new ConfonnxError({ kind: "argument", message });
}

/** The data of server-sent events. Comments and blank lines are nothing. */
async function* events(body) {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      const lines = (rest + decoder.decode(value, { stream: !done })).split("\n");
      rest = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
      if (done) return;
    }
  } finally {
    // Of no use any more, if the loop was left.
    await reader.cancel().catch(() => {});
  }
}

const read = (bytes) => json(new TextDecoder().decode(bytes));

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    throw malformed();
  }
}

const malformed = () => new ConfonnxError({ kind: "reply", message: "the answer is not as the API has it" });

function refused(status, { error, code }) {
  const message = typeof error === "string" ? error : (error?.message ?? "the server refused");
  return new ConfonnxError({ kind: "refused", status, code: error?.code ?? code, message });
}
