import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const models = [];
for await (const model of client.models.list()) models.push(model.id);
// By default this client asks for base64, and decodes it.
const answer = await client.embeddings.create({ model: "encoder", input: ["a b", "x"] });
const vectors = answer.data.map((one) => one.embedding);
let refused = null;
try {
  await client.embeddings.create({ model: "encoder", input: "a ".repeat(40) });
} catch (error) {
  refused = { status: error.status, code: error.code, type: error.type };
}
console.log(JSON.stringify({ models, vectors, refused }));
