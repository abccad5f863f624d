// Calls every method of the surface that docs/openai.md claims, once, and prints what came of each as one JSON object.
import OpenAI, { toFile } from "openai";

const { baseURL, apiKey, tools, caller, slow, held, city } = JSON.parse(process.argv[2]);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 30000 });
const model = "chat";
const messages = [{ role: "user", content: "hello there" }];
const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false };
const weather = { type: "function", function: { name: "weather", parameters: schema } };
const flat = { type: "function", name: "weather", parameters: schema, strict: true };
const said = (text) => ({ type: "message", role: "user", content: text });
const png = () => toFile(Buffer.from("\x89PNG"), "a.png", { type: "image/png" });
const tape = () => toFile(Buffer.alloc(3000, 1), "a.mp3", { type: "audio/mpeg" });
const text = (content = "abc") => toFile(Buffer.from(content), "a.txt");
const types = async (stream) => {
  const seen = [];
  for await (const event of stream) seen.push(event.type);
  return [seen[0], seen.at(-1)];
};
const ids = async (pages) => {
  const seen = [];
  for await (const one of pages) seen.push(one.id);
  return seen.length;
};
const gone = async (call) => {
  try {
    await call();
    return false;
  } catch (error) {
    return error.status === 404;
  }
};
const answered = () => client.responses.create({ model, input: "hi" });
const running = () => client.responses.create({ model: slow, input: "hi", background: true });
const conversation = () => client.conversations.create({ items: [said("one"), said("two")] });
const file = (purpose = "user_data", content) => text(content).then((made) => client.files.create({ file: made, purpose }));
const upload = () => client.uploads.create({ bytes: 3, filename: "a.txt", mime_type: "text/plain", purpose: "user_data" });
const part = async (made) => client.uploads.parts.create(made.id, { data: await text() });
const batch = async (name) => {
  const line = { custom_id: "a", method: "POST", url: "/v1/chat/completions", body: { model: name, messages } };
  const input = await file("batch", `${JSON.stringify(line)}\n`);
  return client.batches.create({ input_file_id: input.id, endpoint: "/v1/chat/completions", completion_window: "24h" });
};
const store = (fields) => client.vectorStores.create({ name: "docs", embedding_model: "embed", ...fields });
const added = async ({ id: vector_store_id }) => {
  const { id } = await client.vectorStores.files.createAndPoll(vector_store_id, { file_id: (await file("assistants")).id });
  return [id, { vector_store_id }];
};
const filled = async () => added(await store());
const fileBatch = async (made) =>
  client.vectorStores.fileBatches.create(made.id, { file_ids: [(await file("assistants")).id, (await file("assistants")).id] });

const calls = {
  "chat.completions.create": async () => (await client.chat.completions.create({ model, messages })).choices[0].message.content,
  "chat.completions.create stream": async () => {
    let heard = "";
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true }))
      heard += chunk.choices[0].delta.content ?? "";
    return heard;
  },
  "chat.completions.parse": async () => {
    const format = { type: "json_schema", json_schema: { name: "place", strict: true, schema } };
    return (await client.chat.completions.parse({ model: city, messages, response_format: format })).choices[0].message.parsed.city;
  },
  "chat.completions.stream": async () =>
    (await client.chat.completions.stream({ model, messages }).finalChatCompletion()).choices[0].message.content,
  "chat.completions.runTools": async () => {
    const asked = { ...weather.function, parse: JSON.parse, function: ({ city: place }) => `cold in ${place}` };
    const runner = client.chat.completions.runTools({ model: tools, messages, tools: [{ type: "function", function: asked }] });
    await runner.finalContent();
    return runner.messages.find((message) => message.role === "tool").content;
  },
  "completions.create": async () => (await client.completions.create({ model, prompt: "once" })).choices[0].text,
  "completions.create stream": async () => {
    let heard = "";
    for await (const chunk of await client.completions.create({ model, prompt: "once", stream: true })) heard += chunk.choices[0].text;
    return heard;
  },
  "embeddings.create": async () => (await client.embeddings.create({ model: "embed", input: "one" })).data[0].embedding.length,
  "models.list": async () => (await ids(client.models.list())) > 0,
  "models.retrieve": async () => (await client.models.retrieve(model)).id,
  "moderations.create": async () => (await client.moderations.create({ model, input: "kill" })).results[0].flagged,
  "audio.speech.create": async () =>
    (await (await client.audio.speech.create({ model, voice: "alloy", input: "hello" })).arrayBuffer()).byteLength,
  "audio.speech.create stream": async () => {
    const asked = { model, voice: "alloy", input: "hello", stream_format: "sse" };
    return (await (await client.audio.speech.create(asked)).text()).includes("speech.audio.done");
  },
  "audio.transcriptions.create": async () => (await client.audio.transcriptions.create({ model, file: await tape() })).text,
  "audio.transcriptions.create stream": async () =>
    types(await client.audio.transcriptions.create({ model, file: await tape(), stream: true })),
  "audio.translations.create": async () => (await client.audio.translations.create({ model, file: await tape() })).text,
  "images.generate": async () => (await client.images.generate({ model, prompt: "a gate", n: 2 })).data.length,
  "images.generate stream": async () =>
    types(await client.images.generate({ model, prompt: "a gate", stream: true, partial_images: 1 })),
  "images.edit": async () => (await client.images.edit({ model, prompt: "a gate", image: await png() })).data.length,
  "images.edit stream": async () => types(await client.images.edit({ model, prompt: "a gate", image: await png(), stream: true })),
  "images.createVariation": async () => (await client.images.createVariation({ model, image: await png() })).data.length,
  "responses.create": async () => (await answered()).output_text,
  "responses.create stream": async () => types(await client.responses.create({ model, input: "hi", stream: true })),
  "responses.parse": async () => {
    const format = { type: "json_schema", name: "place", strict: true, schema };
    return (await client.responses.parse({ model: city, input: "hi", text: { format } })).output_parsed.city;
  },
  "responses.stream": async () => {
    const final = await client.responses.stream({ model: caller, input: "hi", tools: [flat] }).finalResponse();
    return final.output.find((item) => item.type === "function_call").arguments;
  },
  "responses.retrieve": async () => (await client.responses.retrieve((await answered()).id)).output_text,
  "responses.retrieve stream": async () => {
    const { id } = await client.responses.create({ model, input: "hi", background: true });
    return types(await client.responses.retrieve(id, { stream: true }));
  },
  "responses.cancel": async () => (await client.responses.cancel((await running()).id)).status,
  "responses.delete": async () => {
    const { id } = await answered();
    await client.responses.delete(id);
    return gone(() => client.responses.retrieve(id));
  },
  "responses.inputItems.list": async () => ids(client.responses.inputItems.list((await answered()).id)),
  "conversations.create": async () => (await conversation()).object,
  "conversations.retrieve": async () => (await client.conversations.retrieve((await conversation()).id)).object,
  "conversations.update": async () =>
    (await client.conversations.update((await conversation()).id, { metadata: { a: "b" } })).metadata.a,
  "conversations.delete": async () => (await client.conversations.delete((await conversation()).id)).deleted,
  "conversations.items.create": async () =>
    (await client.conversations.items.create((await conversation()).id, { items: [said("three")] })).data.length,
  "conversations.items.list": async () => ids(client.conversations.items.list((await conversation()).id, { limit: 1 })),
  "conversations.items.retrieve": async () => {
    const { id } = await conversation();
    const [item] = (await client.conversations.items.list(id)).data;
    return (await client.conversations.items.retrieve(item.id, { conversation_id: id })).content[0].text;
  },
  "conversations.items.delete": async () => {
    const { id } = await conversation();
    const [item] = (await client.conversations.items.list(id)).data;
    await client.conversations.items.delete(item.id, { conversation_id: id });
    return ids(client.conversations.items.list(id));
  },
  "files.create": async () => (await file()).status,
  "files.retrieve": async () => (await client.files.retrieve((await file()).id)).filename,
  "files.list": async () => {
    const { id } = await file();
    for await (const one of client.files.list({ limit: 2 })) if (one.id === id) return true;
    return false;
  },
  "files.content": async () => (await client.files.content((await file()).id)).text(),
  "files.waitForProcessing": async () => (await client.files.waitForProcessing((await file()).id)).status,
  "files.delete": async () => (await client.files.delete((await file()).id)).deleted,
  "uploads.create": async () => (await upload()).status,
  "uploads.parts.create": async () => (await part(await upload())).object,
  "uploads.complete": async () => {
    const made = await upload();
    const { id } = await part(made);
    return (await client.uploads.complete(made.id, { part_ids: [id] })).file.bytes;
  },
  "uploads.cancel": async () => (await client.uploads.cancel((await upload()).id)).status,
  "batches.create": async () => (await batch(model)).status,
  "batches.retrieve": async () => (await client.batches.retrieve((await batch(model)).id)).object,
  "batches.list": async () => {
    const { id } = await batch(model);
    for await (const one of client.batches.list({ limit: 2 })) if (one.id === id) return true;
    return false;
  },
  "vectorStores.create": async () => (await store()).object,
  "vectorStores.retrieve": async () => (await client.vectorStores.retrieve((await store()).id)).name,
  "vectorStores.update": async () => (await client.vectorStores.update((await store()).id, { metadata: { a: "b" } })).metadata.a,
  "vectorStores.list": async () => {
    const { id } = await store();
    for await (const one of client.vectorStores.list({ limit: 2 })) if (one.id === id) return true;
    return false;
  },
  "vectorStores.delete": async () => {
    const { id } = await store();
    const { deleted } = await client.vectorStores.delete(id);
    return deleted && gone(() => client.vectorStores.retrieve(id));
  },
  "vectorStores.search": async () => {
    const [, { vector_store_id }] = await filled();
    const found = [];
    for await (const one of client.vectorStores.search(vector_store_id, { query: "abc" })) found.push(one.content[0].text);
    return found;
  },
  "vectorStores.files.create": async () =>
    (await client.vectorStores.files.create((await store()).id, { file_id: (await file("assistants")).id })).object,
  "vectorStores.files.retrieve": async () => (await client.vectorStores.files.retrieve(...(await filled()))).status,
  "vectorStores.files.update": async () => {
    const [id, where] = await filled();
    return (await client.vectorStores.files.update(id, { ...where, attributes: { year: 2024 } })).attributes.year;
  },
  "vectorStores.files.list": async () => {
    const made = await store();
    await Promise.all([added(made), added(made), added(made)]);
    return ids(client.vectorStores.files.list(made.id, { limit: 1, filter: "completed" }));
  },
  "vectorStores.files.delete": async () => {
    const [id, where] = await filled();
    const { deleted } = await client.vectorStores.files.delete(id, where);
    return deleted && gone(() => client.vectorStores.files.retrieve(id, where));
  },
  "vectorStores.files.content": async () => (await client.vectorStores.files.content(...(await filled()))).data[0].text,
  "vectorStores.files.createAndPoll": async () =>
    (await client.vectorStores.files.createAndPoll((await store()).id, { file_id: (await file("assistants")).id })).status,
  "vectorStores.files.poll": async () => {
    const made = await store();
    const { id } = await client.vectorStores.files.create(made.id, { file_id: (await file("assistants")).id });
    return (await client.vectorStores.files.poll(made.id, id)).status;
  },
  "vectorStores.files.upload": async () => {
    const made = await store();
    const { id } = await client.vectorStores.files.upload(made.id, await text());
    return (await client.files.retrieve(id)).filename;
  },
  "vectorStores.files.uploadAndPoll": async () =>
    (await client.vectorStores.files.uploadAndPoll((await store()).id, await text())).status,
  "vectorStores.fileBatches.create": async () => (await fileBatch(await store())).file_counts.total,
  "vectorStores.fileBatches.retrieve": async () => {
    const made = await store();
    const { id } = await fileBatch(made);
    return (await client.vectorStores.fileBatches.retrieve(id, { vector_store_id: made.id })).file_counts.total;
  },
  "vectorStores.fileBatches.cancel": async () => {
    const made = await store({ embedding_model: held });
    const { id } = await fileBatch(made);
    return (await client.vectorStores.fileBatches.cancel(id, { vector_store_id: made.id })).status;
  },
  "vectorStores.fileBatches.listFiles": async () => {
    const made = await store();
    const { id } = await fileBatch(made);
    return ids(client.vectorStores.fileBatches.listFiles(id, { vector_store_id: made.id, limit: 1 }));
  },
  "vectorStores.fileBatches.createAndPoll": async () => {
    const asked = { files: [{ file_id: (await file("assistants")).id, attributes: { year: 2024 } }] };
    return (await client.vectorStores.fileBatches.createAndPoll((await store()).id, asked)).file_counts.completed;
  },
  "vectorStores.fileBatches.poll": async () => {
    const made = await store();
    const { id } = await fileBatch(made);
    return (await client.vectorStores.fileBatches.poll(made.id, id)).file_counts.completed;
  },
  "vectorStores.fileBatches.uploadAndPoll": async () => {
    const files = [await text("one"), await text("two")];
    return (await client.vectorStores.fileBatches.uploadAndPoll((await store()).id, { files })).file_counts.completed;
  },
  "realtime.clientSecrets.create": async () =>
    (await client.realtime.clientSecrets.create({ session: { type: "realtime", model } })).value.startsWith("ek_"),
  "batches.cancel": async () => ["cancelling", "cancelled"].includes((await client.batches.cancel((await batch(slow)).id)).status),
};

const seen = {};
await Promise.all(
  Object.entries(calls).map(async ([name, call]) => {
    try {
      seen[name] = (await call()) ?? null;
    } catch (error) {
      seen[name] = { error: `${error.constructor.name}: ${error.message}` };
    }
  }),
);
console.log(JSON.stringify(seen));
