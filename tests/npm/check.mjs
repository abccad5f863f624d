// Uses the unmodified `openai` package as a program would and prints what it got as one JSON object.
import OpenAI from "openai";

const [baseURL, apiKey, toolModel, brokenModel, structuredModel] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20000 });
const messages = [{ role: "user", content: "hello there" }];
const tool = { type: "function", function: { name: "weather", parameters: { type: "object", properties: {} } } };
const seen = {};

const { data, response } = await client.chat.completions.create({ model: "chat", messages, user: "ann" }).withResponse();
seen.chat = data.choices[0].message.content;
seen.usage = data.usage.total_tokens;
seen.requestId = data._request_id === response.headers.get("x-request-id");
seen.deployment = response.headers.get("x-penstock-deployment");

seen.stream = "";
seen.usageUnasked = false;
for await (const chunk of await client.chat.completions.create({ model: "chat", messages, user: "ann", stream: true })) {
  seen.stream += chunk.choices[0].delta.content ?? "";
  seen.usageUnasked ||= Boolean(chunk.usage);
}

const asked = { model: "chat", messages, stream: true, stream_options: { include_usage: true } };
for await (const chunk of await client.chat.completions.create(asked)) {
  seen.lastUsage = chunk.usage?.completion_tokens ?? null;
}

const called = await client.chat.completions.create({ model: toolModel, messages, tools: [tool] });
seen.tool = called.choices[0].message.tool_calls[0].function;

const runner = client.chat.completions.stream({ model: toolModel, messages, tools: [tool] });
const final = await runner.finalChatCompletion();
seen.streamedTool = final.choices[0].message.tool_calls[0].function.arguments;

const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const format = { type: "json_schema", json_schema: { name: "place", strict: true, schema } };
const structured = await client.chat.completions.parse({ model: structuredModel, messages, response_format: format });
seen.structured = structured.choices[0].message.parsed;

const embedded = await client.embeddings.create({ model: "embed", input: ["one", "two"] });
const floats = await client.embeddings.create({ model: "embed", input: ["one", "two"], encoding_format: "float" });
seen.embeddings = JSON.stringify(embedded.data.map((row) => row.embedding));
seen.sameAsFloats = seen.embeddings === JSON.stringify(floats.data.map((row) => row.embedding));

seen.completion = (await client.completions.create({ model: "chat", prompt: "once", user: "ann" })).choices[0].text;

seen.models = [];
for await (const model of client.models.list()) seen.models.push(model.id);

seen.errors = [];
const wrong = new OpenAI({ baseURL, apiKey: "sk-ps-nobody", maxRetries: 0 });
for (const attempt of [
  () => wrong.chat.completions.create({ model: "chat", messages }),
  () => client.chat.completions.create({ model: "gpt-99", messages }),
  () => client.chat.completions.create({ model: "chat", messages, temperature: "hot" }),
  async () => {
    for await (const chunk of await client.chat.completions.create({ model: brokenModel, messages, stream: true })) {
      seen.broken = (seen.broken ?? "") + (chunk.choices[0].delta.content ?? "");
    }
  },
]) {
  try {
    await attempt();
    seen.errors.push("none");
  } catch (error) {
    seen.errors.push([error.constructor.name, error.status ?? null, error.code ?? null]);
  }
}

console.log(JSON.stringify(seen));
