import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
const completion = await client.completions.create({ model: "decoder", prompt: "hello", temperature: 0, max_tokens: 12 });
const asked = { model: "decoder", messages: [{ role: "user", content: "hello" }], seed: 7, max_tokens: 30 };
const whole = await client.chat.completions.create(asked);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  streamed += chunk.choices[0]?.delta.content ?? "";
}
console.log(JSON.stringify({
  completion: completion.choices[0].text,
  whole: whole.choices[0].message.content,
  streamed,
}));
