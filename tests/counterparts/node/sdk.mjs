// JavaScript clients against the running gateway: the OpenAI SDK and the Vercel AI SDK, changed in nothing but the
// base URL; clients of MCP; and aimock as a provider.
import assert from "node:assert/strict";
import { join } from "node:path";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { LLMock } from "@copilotkit/aimock";
import { APICallError, generateText, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";
import * as harness from "./harness.mjs";
import { mcpClients } from "./mcp-clients.mjs";
import { storedCompletions } from "./stored.mjs";

const { script, until, npmVersion } = harness;
const tests = harness.suite("sdk-node");

const mock = new LLMock({ port: 0, host: "127.0.0.1" });
await mock.start();
const gateway = await harness.startGateway({
  name: "gateway-node-sdk",
  config: `[[providers]]\nname = "aimock"\nbase_url = "${mock.url}/v1"\napi_key = "aimock-key"\nmodels = ["gpt-4o"]\n`,
});
const mcp = await harness.startNodeServer("mcp-node-sdk", join(harness.SOURCES, "node/servers/typescript-sdk.mjs"), [],
  { nodeArgs: ["--import", join(harness.SOURCES, "node/resolve.mjs")] });
const server = { type: "mcp", server_label: "srv", server_url: `${mcp.url}/mcp` };
const add = (a, b) => ({ calls: [{ tool: "add", arguments: { a, b } }] });
const own = { name: "local_time", description: "The caller's clock", parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } };

// The OpenAI SDK.
const openai = tests.subject("client", "OpenAI JavaScript SDK", npmVersion("openai"), "openai",
  "`create`, streams, `.stream()`, `runTools`, errors, aborts, stored completions");
const client = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: "any", maxRetries: 0 });
const model = gateway.model;
const ask = (turns, more = {}) => { const { key, message } = script(turns); return { key, body: { model, messages: [message], ...more } }; };

await tests.test(openai, "a plain completion is what the provider said", async () => {
  const { data, response } = await client.chat.completions.create(ask([{ text: "Hello." }]).body).withResponse();
  assert.equal(data.choices[0].message.content, "Hello.");
  assert.equal(data.usage.total_tokens, 15);
  assert.ok(response.headers.get("x-request-id"), "no x-request-id");
});

await tests.test(openai, "a plain stream is what the provider sent", async () => {
  const stream = await client.chat.completions.create({ ...ask([{ text: "A longer hello to cut." }]).body, stream: true, stream_options: { include_usage: true } });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const seen = harness.inspect(chunks);
  assert.equal(seen.content, "A longer hello to cut.");
  assert.deepEqual(seen.usage, { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 });
});

await tests.test(openai, "create with an MCP server answers from its tool", async () => {
  const completion = await client.chat.completions.create(ask([add(2, 40), { text: "It is {{tools}}." }], { tools: [server] }).body);
  const [choice] = completion.choices;
  assert.equal(choice.finish_reason, "stop");
  assert.equal(choice.message.tool_calls, undefined);
  assert.match(choice.message.content, /<summary>🔧 add \(127\.0\.0\.1:\d+\)<\/summary>[^]*It is sum=42\./u);
  assert.equal(completion.usage.total_tokens, 30);
  assert.equal(completion.toolgate.turns, 2);
  assert.equal(completion.toolgate.tool_calls.length, 1);
});

await tests.test(openai, "a stream over two turns is one ordinary completion", async () => {
  const stream = await client.chat.completions.create({
    ...ask([{ text: "Let me see.", ...add(2, 40) }, { text: "It is {{tools}}." }], { tools: [server] }).body, stream: true, stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const seen = harness.inspect(chunks);
  assert.equal(seen.finish, "stop");
  assert.deepEqual(seen.calls, []);
  assert.match(seen.content, /^Let me see\.[^]*🔧 add[^]*sum=42[^]*It is sum=42\.$/u);
  assert.deepEqual(seen.usage, { prompt_tokens: 20, completion_tokens: 10, total_tokens: 30 });
  assert.deepEqual(seen.events.map((event) => event.event).filter((event) => event.startsWith("tool_")), ["tool_call", "tool_result"]);
});

await tests.test(openai, "the .stream() helper puts the answer together", async () => {
  const runner = client.chat.completions.stream({ ...ask([add(1, 2), { text: "It is {{tools}}." }], { tools: [server] }).body, stream_options: { include_usage: true } });
  let deltas = "";
  runner.on("content", (delta) => { deltas += delta; });
  const completion = await runner.finalChatCompletion();
  assert.match(completion.choices[0].message.content, /It is sum=3\.$/);
  assert.equal(deltas, completion.choices[0].message.content);
  assert.equal(completion.choices[0].finish_reason, "stop");
  assert.equal((await runner.totalUsage()).total_tokens, 30);
});

await tests.test(openai, "runTools runs the caller's function beside the MCP server's", async () => {
  const cities = [];
  const { key, body } = ask([add(20, 22), { calls: [{ tool: "local_time", arguments: { city: "Tokyo" } }] }, { text: "Both: {{tools}}" }]);
  const runner = client.chat.completions.runTools({
    ...body,
    tools: [server, { type: "function", function: { ...own, parse: JSON.parse, function: ({ city }) => { cities.push(city); return `it is noon in ${city}`; } } }],
  });
  const content = await runner.finalContent();
  assert.deepEqual(cities, ["Tokyo"]);
  assert.match(content, /noon in Tokyo/);
  assert.match(content, /sum=42/, "the hidden turn was not put back");
  const last = gateway.provider.seen(key).at(-1).body.messages;
  assert.deepEqual(last.map((message) => message.role), ["user", "assistant", "tool", "assistant", "tool"]);
});

await tests.test(openai, "runTools streams with the caller's function and the MCP server's in one turn", async () => {
  const { body } = ask([{ calls: [...add(20, 22).calls, { tool: "local_time", arguments: { city: "Oslo" } }] }, { text: "Both: {{tools}}" }]);
  const runner = client.chat.completions.runTools({
    ...body, stream: true,
    tools: [server, { type: "function", function: { ...own, parse: JSON.parse, function: ({ city }) => `it is noon in ${city}` } }],
  });
  const content = await runner.finalContent();
  assert.match(content, /sum=42/);
  assert.match(content, /noon in Oslo/);
});

await tests.test(openai, "an abort of a plain stream reaches the provider", async () => {
  const { key, body } = ask([{ text: "Beginning…", hang: true }]);
  const stream = await client.chat.completions.create({ ...body, stream: true });
  for await (const chunk of stream) if (chunk.choices[0]?.delta.content) stream.controller.abort();
  await until("the provider's request is closed", () => gateway.provider.seen(key)[0].closed, 5);
});

await tests.test(openai, "an abort of a stream with tools reaches the provider before one was called", async () => {
  const { key, body } = ask([{ text: "Beginning…", hang: true }], { tools: [server] });
  const stream = await client.chat.completions.create({ ...body, stream: true });
  for await (const chunk of stream) if (/Beginn/.test(chunk.choices[0]?.delta.content ?? "")) stream.controller.abort();
  await until("the provider's request is closed", () => gateway.provider.seen(key)[0]?.closed, 5);
});

// With the SDK's own tries.
const charges = (key) => mcp.child.text.split(`CHARGED ${key}.`).length - 1;
const charge = async (key, timeout, streamed, ...turns) => {
  const repeating = new OpenAI({ baseURL: `${gateway.url}/v1`, apiKey: "any", ...(timeout ? { timeout } : {}) });
  const call = { calls: [{ tool: "charge", arguments: { key, seconds: timeout ? 2 : 0 } }] };
  const { body } = ask([call, ...turns], { tools: [server] });
  try {
    if (!streamed) return (await repeating.chat.completions.create(body)).choices[0].message.content;
    let said = "";
    for await (const chunk of await repeating.chat.completions.create({ ...body, stream: true })) said += chunk.choices[0]?.delta.content ?? "";
    return said;
  } catch (error) { return error; }
};

await tests.test(openai, "a tool is called once when the provider fails after it", async () => {
  for (const status of [500, 503, 429, 409]) for (const streamed of [false, true]) {
    const key = `fails-${status}-${streamed}`;
    const error = await charge(key, 0, streamed, { error: { status, body: { message: "broken", type: "provider_error", code: "its_code" } } });
    assert.equal(error.code, "provider_failed_after_tools", `${error}`);
    assert.equal(charges(key), 1, `after ${status}, streamed: ${streamed}`);
  }
});

await tests.test(openai, "a tool is called once when the client runs out of time", async () => {
  for (const streamed of [false, true]) {
    const key = `late-${streamed}`;
    assert.match(`${await charge(key, 1200, streamed, { text: "It is {{tools}}." })}`, /It is charged/);
    assert.equal(charges(key), 1, `streamed: ${streamed}`);
  }
});

const failure = async (body) => {
  try { await client.chat.completions.create(body); } catch (error) { return error; }
  throw new Error("it did not fail");
};

await tests.test(openai, "an unknown model is a NotFoundError with code model_not_found", async () => {
  for (const wrong of ["gpt-tset", "scriptde/gpt-test"]) {
    const error = await failure({ model: wrong, messages: [{ role: "user", content: "hi" }] });
    assert.ok(error instanceof OpenAI.NotFoundError, error.constructor.name);
    assert.equal(error.code, "model_not_found");
    assert.match(error.message, /gpt-test/);
  }
});

await tests.test(openai, "missing messages are a BadRequestError that names them", async () => {
  const error = await failure({ model });
  assert.ok(error instanceof OpenAI.BadRequestError, error.constructor.name);
  assert.equal(error.param, "messages");
});

await tests.test(openai, "an unknown gateway option is a BadRequestError with the nearest name", async () => {
  const error = await failure(ask([{ text: "x" }], { toolgate: { max_trns: 3 } }).body);
  assert.ok(error instanceof OpenAI.BadRequestError, error.constructor.name);
  assert.match(error.message, /max_turns/);
});

await tests.test(openai, "the provider's 401 is an AuthenticationError", async () => {
  const error = await failure(ask([{ error: { status: 401, body: { message: "Incorrect API key provided", type: "invalid_request_error", code: "invalid_api_key" } } }]).body);
  assert.ok(error instanceof OpenAI.AuthenticationError, error.constructor.name);
  assert.match(error.message, /Incorrect API key/);
});

for (const [what, tools] of [["plain", undefined], ["with tools", [server]]]) {
  await tests.test(openai, `the provider's 429 keeps its Retry-After, ${what}`, async () => {
    const error = await failure(ask([{ error: { status: 429, headers: { "retry-after": "17" }, body: { message: "Slow down", type: "rate_limit_error", code: "rate_limit_exceeded" } } }], { tools }).body);
    assert.ok(error instanceof OpenAI.RateLimitError, error.constructor.name);
    assert.equal(error.headers.get("retry-after"), "17");
    assert.match(error.message, /Slow down/);
  });
  await tests.test(openai, `a provider that fails once is asked again before the first byte, ${what}`, async () => {
    const { key, body } = ask([{ error: { status: 503, body: { message: "overloaded", type: "server_error" } }, times: 1, text: "Better now." }], { tools });
    const completion = await client.chat.completions.create(body);
    assert.equal(completion.choices[0].message.content, "Better now.");
    assert.equal(gateway.provider.seen(key).length, 2);
  });
  await tests.test(openai, `a provider cut in the middle of a stream is an error, not an end, ${what}`, async () => {
    const stream = await client.chat.completions.create({ ...ask([{ text: "Half of it", cut: true }], { tools }).body, stream: true });
    let finish;
    await assert.rejects(async () => { for await (const chunk of stream) finish = chunk.choices[0]?.finish_reason ?? finish; });
    assert.equal(finish, undefined);
  });
}

await tests.test(openai, "an unreachable MCP server is a 424 that names it", async () => {
  const error = await failure(ask([{ text: "x" }], { tools: [{ ...server, server_url: "http://127.0.0.1:9/mcp" }] }).body);
  assert.equal(error.status, 424);
  assert.match(error.message, /127\.0\.0\.1:9/);
});

await tests.test(openai, "models.list has the configured model", async () => {
  const ids = [];
  for await (const entry of client.models.list()) ids.push(entry.id);
  assert.ok(ids.includes(model), ids.join(", "));
});

await tests.test(openai, "a provider's host as the base URL takes the caller's key there, with tools and without", async () => {
  const direct = new OpenAI({ baseURL: gateway.provider.url.replace("http://", `${gateway.url}/`), apiKey: harness.PROVIDER_KEY, maxRetries: 0 });
  const plain = await direct.chat.completions.create({ ...ask([{ text: "Hello." }]).body, model: harness.MODEL });
  assert.equal(plain.choices[0].message.content, "Hello.");
  const tooled = await direct.chat.completions.create({ ...ask([add(2, 40), { text: "It is {{tools}}." }], { tools: [server] }).body, model: harness.MODEL });
  assert.match(tooled.choices[0].message.content, /It is sum=42\.$/);
  assert.deepEqual((await direct.models.list()).data.map((entry) => entry.id), [harness.MODEL]);
  assert.deepEqual((await direct.embeddings.create({ model: "any", input: "x", encoding_format: "float" })).data[0].embedding, [0.25, -0.5]);
  const wrong = new OpenAI({ baseURL: direct.baseURL, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(wrong.chat.completions.create({ ...ask([{ text: "x" }]).body, model: harness.MODEL }), OpenAI.AuthenticationError);
});

await storedCompletions(tests, openai, gateway, server);
await mcpClients(tests, gateway, server);

// The Vercel AI SDK.
const vercel = tests.subject("client", "Vercel AI SDK with @ai-sdk/openai-compatible", `${npmVersion("ai")} and ${npmVersion("@ai-sdk/openai-compatible")}`, "ai",
  "`generateText`, `streamText`, own tools; MCP servers are added with `transformRequestBody`");
const compatible = (tools) => createOpenAICompatible({
  name: "toolgate", baseURL: `${gateway.url}/v1`, apiKey: "any", includeUsage: true,
  transformRequestBody: (body) => ({ ...body, ...(tools.length ? { tools: [...(body.tools ?? []), ...tools] } : {}) }),
})(model);
const localTime = tool({
  description: own.description, inputSchema: z.object({ city: z.string() }), execute: async ({ city }) => `it is noon in ${city}`,
});

await tests.test(vercel, "generateText answers from an MCP server's tool", async () => {
  const result = await generateText({ model: compatible([server]), messages: [script([add(2, 40), { text: "It is {{tools}}." }]).message], maxRetries: 0 });
  assert.match(result.text, /It is sum=42\.$/);
  assert.equal(result.finishReason, "stop");
  assert.equal(result.toolCalls.length, 0);
  assert.equal(result.usage.totalTokens, 30);
});

await tests.test(vercel, "streamText answers from an MCP server's tool", async () => {
  const result = streamText({ model: compatible([server]), messages: [script([add(2, 40), { text: "It is {{tools}}." }]).message], maxRetries: 0, onError: () => {} });
  let text = "";
  for await (const piece of result.textStream) text += piece;
  assert.match(text, /🔧 add[^]*It is sum=42\.$/u);
  assert.equal(await result.finishReason, "stop");
  assert.equal((await result.usage).totalTokens, 30);
});

await tests.test(vercel, "generateText runs its own tool beside the MCP server's", async () => {
  const turns = [add(20, 22), { calls: [{ tool: "localTime", arguments: { city: "Tokyo" } }] }, { text: "Both: {{tools}}" }];
  const result = await generateText({ model: compatible([server]), messages: [script(turns).message], tools: { localTime }, stopWhen: stepCountIs(5), maxRetries: 0 });
  assert.match(result.text, /sum=42/);
  assert.match(result.text, /noon in Tokyo/);
  assert.equal(result.steps.length, 2);
});

await tests.test(vercel, "streamText runs its own tool beside the MCP server's", async () => {
  const turns = [{ calls: [...add(20, 22).calls, { tool: "localTime", arguments: { city: "Oslo" } }] }, { text: "Both: {{tools}}" }];
  const result = streamText({ model: compatible([server]), messages: [script(turns).message], tools: { localTime }, stopWhen: stepCountIs(5), maxRetries: 0, onError: () => {} });
  let text = "";
  for await (const piece of result.textStream) text += piece;
  assert.match(text, /sum=42/);
  assert.match(text, /noon in Oslo/);
});

await tests.test(vercel, "gateway options travel as provider options", async () => {
  const result = await generateText({
    model: compatible([server]), messages: [script([add(2, 40), { text: "It is {{tools}}." }]).message], maxRetries: 0, providerOptions: { toolgate: { toolgate: { output: "text" } } },
  });
  assert.equal(result.text.trim(), "It is sum=42.");
});

await tests.test(vercel, "a provider's error keeps its status and words", async () => {
  const asked = generateText({ model: compatible([]), messages: [script([{ error: { status: 429, headers: { "retry-after": "9" }, body: { message: "Slow down", type: "rate_limit_error" } } }]).message], maxRetries: 0 });
  const error = await asked.then(() => undefined, (failure) => failure);
  assert.ok(APICallError.isInstance(error), String(error));
  assert.equal(error.statusCode, 429);
  assert.match(error.message, /Slow down/);
});

await tests.test(vercel, "an abort reaches the provider", async () => {
  const { key, message } = script([{ text: "Beginning…", hang: true }]);
  const controller = new AbortController();
  const result = streamText({ model: compatible([server]), messages: [message], abortSignal: controller.signal, maxRetries: 0, onError: () => {} });
  for await (const part of result.fullStream) if (part.type === "text-delta") controller.abort();
  await until("the provider's request is closed", () => gateway.provider.seen(key)[0]?.closed, 5);
});

// aimock as the provider.
const aimock = tests.subject("provider", "aimock", npmVersion("@copilotkit/aimock"), "@copilotkit/aimock", "text, tool calls, streams, errors, a cut stream");
const atAimock = { model: "aimock/gpt-4o" };
mock.onMessage("say hello", { content: "Hello from aimock." });
mock.on({ userMessage: "sum please", hasToolResult: false }, { toolCalls: [{ name: "srv_add", arguments: '{"a":2,"b":40}' }] });
mock.on({ userMessage: "sum please", hasToolResult: true }, { content: "The sum is there." });
mock.on({ userMessage: "both at once", hasToolResult: false }, { content: "One moment.", toolCalls: [{ name: "srv_add", arguments: '{"a":1,"b":2}' }, { name: "srv_add", arguments: '{"a":3,"b":4}' }] });
mock.on({ userMessage: "both at once", hasToolResult: true }, { content: "Two sums." });
mock.on({ userMessage: "think" }, { content: "Thought.", reasoning: "Let me think about it." });
mock.onMessage("be limited", { error: { message: "Rate limited", type: "rate_limit_error", code: "rate_limit_exceeded" }, status: 429, retryAfter: 23 });
mock.onMessage("break off", { content: "This sentence will be cut before its end, long before." }, { truncateAfterChunks: 3, chunkSize: 5 });
mock.on({ userMessage: "tool text first", hasToolResult: false }, { blocks: [{ type: "toolCall", name: "srv_add", arguments: '{"a":5,"b":6}' }, { type: "text", text: "calling" }] });
mock.on({ userMessage: "tool text first", hasToolResult: true }, { content: "Eleven." });
const messages = (content) => [{ role: "user", content }];

await tests.test(aimock, "text comes through, whole and streamed", async () => {
  assert.equal((await harness.completed(gateway, { ...atAimock, messages: messages("say hello") })).content, "Hello from aimock.");
  assert.equal((await harness.streamed(gateway, { ...atAimock, messages: messages("say hello") })).content, "Hello from aimock.");
});

for (const [how, send] of [["streamed", harness.streamed], ["whole", harness.completed]]) {
  await tests.test(aimock, `its tool call is executed, ${how}`, async () => {
    const seen = await send(gateway, { ...atAimock, messages: messages("sum please"), tools: [server] });
    assert.match(seen.content, /sum=42[^]*The sum is there\.$/);
    assert.deepEqual(seen.calls, []);
    const last = mock.getLastRequest().body.messages.at(-1);
    assert.equal(last.role, "tool");
    assert.match(String(last.content), /sum=42/);
  });
  await tests.test(aimock, `its parallel calls beside text are executed, ${how}`, async () => {
    const seen = await send(gateway, { ...atAimock, messages: messages("both at once"), tools: [server] });
    assert.match(seen.content, /One moment\.[^]*sum=3[^]*sum=7[^]*Two sums\.$/);
  });
  await tests.test(aimock, `a call that comes before text is executed, ${how}`, async () => {
    const seen = await send(gateway, { ...atAimock, messages: messages("tool text first"), tools: [server] });
    assert.match(seen.content, /sum=11[^]*Eleven\.$/);
  });
}

await tests.test(aimock, "reasoning stays beside the content", async () => {
  const seen = await harness.streamed(gateway, { ...atAimock, messages: messages("think"), tools: [server] });
  assert.equal(seen.content, "Thought.");
  const reasoning = seen.chunks.flatMap((chunk) => chunk.choices).map(({ delta }) => delta.reasoning_content ?? delta.reasoning ?? "").join("");
  assert.equal(reasoning, "Let me think about it.");
});

await tests.test(aimock, "its 429 keeps Retry-After and words", async () => {
  const seen = await harness.completed(gateway, { ...atAimock, messages: messages("be limited") });
  assert.equal(seen.status, 429);
  assert.equal(seen.headers.get("retry-after"), "23");
  assert.match(seen.error.message, /Rate limited/);
});

await tests.test(aimock, "its cut stream is an error to the client", async () => {
  const read = harness.streamed(gateway, { ...atAimock, messages: messages("break off"), tools: [server] });
  const seen = await read.catch((error) => ({ error }));
  assert.ok(seen.error, "the stream ended as if it were whole");
});

await tests.test(openai, "the gateway's log holds no provider key and no panic", async () => {
  assert.doesNotMatch(gateway.child.text, new RegExp(`${harness.PROVIDER_KEY}|aimock-key`));
  assert.doesNotMatch(gateway.child.text, /panicked/);
});

harness.atEnd(() => mock.stop());
await tests.finish();
