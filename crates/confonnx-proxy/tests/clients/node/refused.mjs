import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "any", maxRetries: 0 });
try {
  await client.models.list();
  console.log("{}");
} catch (error) {
  console.log(JSON.stringify({ status: error.status, code: error.code, checks: error.error?.checks }));
}
