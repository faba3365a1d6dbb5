// A model whose turns are written by the test: the last user message that is JSON with `turns` is its script.
//
// It checks what it is sent as strictly as the strictest provider would, so that a gateway that sends a field or an
// order no provider takes fails here and not in production. It keeps what it saw: GET /seen/{key}.
import { createServer } from "node:http";

export const PROVIDER_KEY = "provider-key-canary";
export const MODEL = "gpt-test";

/** Starts it on a free loopback port. */
export async function startProvider() {
  const seen = new Map();
  const server = createServer((request, response) => {
    answer(request, response, seen).catch((failure) => {
      if (!response.headersSent) refuse(response, 500, { message: `scripted provider: ${failure.stack}`, type: "server_error" });
      else response.destroy();
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/v1`,
    seen: (key) => seen.get(key) ?? [],
    stop: () => new Promise((resolve) => { server.close(resolve); server.closeAllConnections(); }),
  };
}

async function answer(request, response, seen) {
  if (request.method === "GET" && request.url.startsWith("/seen/")) {
    const key = decodeURIComponent(request.url.slice("/seen/".length));
    return json(response, 200, seen.get(key) ?? []);
  }
  if (request.method === "GET" && request.url === "/v1/models") {
    return json(response, 200, { object: "list", data: [{ id: MODEL, object: "model", created: 1, owned_by: "test" }] });
  }
  const body = await readJson(request);
  if (request.headers.authorization !== `Bearer ${PROVIDER_KEY}`) {
    return refuse(response, 401, { message: "Incorrect API key provided", type: "invalid_request_error", code: "invalid_api_key" });
  }
  if (request.url === "/v1/embeddings") {
    return json(response, 200, {
      object: "list", model: body.model, data: [{ object: "embedding", index: 0, embedding: [0.25, -0.5] }],
      usage: { prompt_tokens: 1, total_tokens: 1 },
    });
  }
  if (request.url !== "/v1/chat/completions") return refuse(response, 404, { message: `no route ${request.url}`, type: "invalid_request_error" });

  const script = findScript(body.messages ?? []);
  const record = { body, headers: request.headers, closed: false };
  response.on("close", () => { record.closed = true; });
  if (script.key) seen.set(script.key, [...(seen.get(script.key) ?? []), record]);

  const complaint = check(body);
  if (complaint) return refuse(response, 400, { message: `scripted provider: ${complaint}`, type: "invalid_request_error", param: "messages" });
  const turn = script.auto ? automaticTurn(body, script) : script.turns[turnsSoFar(body.messages)];
  if (!turn) return refuse(response, 400, { message: `scripted provider: no turn ${turnsSoFar(body.messages) + 1} in the script`, type: "invalid_request_error" });
  if (turn.error) {
    const failures = seen.get(script.key)?.length ?? 1;
    if (!turn.times || failures <= turn.times) return refuse(response, turn.error.status, turn.error.body, turn.error.headers);
  }
  const calls = (turn.calls ?? []).map((call, index) => ({
    id: `call_${turnsSoFar(body.messages)}_${index}_${Math.random().toString(36).slice(2, 8)}`,
    type: "function",
    function: { name: functionName(call, body.tools ?? []), arguments: call.raw ?? JSON.stringify(call.arguments ?? {}) },
  }));
  const text = turn.text?.replace("{{tools}}", toolTexts(body.messages).join("\n"));
  const finish = turn.finish ?? (calls.length ? "tool_calls" : "stop");
  const usage = { prompt_tokens: 10, completion_tokens: 5, total_tokens: 15 };
  const base = { id: `chatcmpl-${Math.random().toString(36).slice(2)}`, created: 1_700_000_000, model: body.model, system_fingerprint: "fp_test" };
  if (!body.stream) {
    if (turn.hang) return; // until the client goes away
    const message = { role: "assistant", content: text ?? null, refusal: null, ...(calls.length ? { tool_calls: calls } : {}) };
    return json(response, 200, { ...base, object: "chat.completion", choices: [{ index: 0, message, logprobs: null, finish_reason: finish }], usage });
  }
  await stream(response, { ...base, object: "chat.completion.chunk" }, { text, calls, finish, turn, usage: body.stream_options?.include_usage ? usage : undefined });
}

async function stream(response, base, { text, calls, finish, turn, usage }) {
  response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8", "x-request-id": "req_provider" });
  const send = (delta, finish_reason = null) =>
    response.write(`data: ${JSON.stringify({ ...base, choices: [{ index: 0, delta, logprobs: null, finish_reason }], ...(usage ? { usage: null } : {}) })}\n\n`);
  send({ role: "assistant", content: calls.length && !text ? null : "", refusal: null });
  for (const piece of pieces(text ?? "", 7)) send({ content: piece });
  if (turn.hang) return; // until the client goes away
  if (turn.cut) return response.write(": cut\n\n", () => response.destroy()); // once all before it is on its way
  calls.forEach((call, index) => {
    send({ tool_calls: [{ index, id: call.id, type: "function", function: { name: call.function.name, arguments: "" } }] });
    for (const piece of pieces(call.function.arguments, 9)) send({ tool_calls: [{ index, function: { arguments: piece } }] });
  });
  send({}, finish);
  if (usage) response.write(`data: ${JSON.stringify({ ...base, choices: [], usage })}\n\n`);
  response.end("data: [DONE]\n\n");
}

const pieces = (text, size) => Array.from({ length: Math.ceil(text.length / size) }, (_, i) => text.slice(i * size, (i + 1) * size));

/** The tool the script means: its exact name, or the offered name that ends with it. */
function functionName(call, tools) {
  const names = tools.map((tool) => tool.function.name);
  return names.find((name) => name === call.tool)
    ?? names.find((name) => name.endsWith(`_${call.tool}`))
    ?? names.find((name) => name.includes(`_${call.tool}_`))
    ?? call.tool;
}

/** First every offered tool, with the script's arguments or such as its schema asks for; then an answer. */
function automaticTurn(body, script) {
  if (turnsSoFar(body.messages) > 0 || !body.tools?.length) return { text: "Done: {{tools}}" };
  const given = Object.entries(script.arguments ?? {});
  return {
    calls: body.tools.flatMap(({ function: { name, parameters } }) => {
      const mine = given.filter(([tool]) => name === tool || name.endsWith(`_${tool}`));
      const longest = mine.sort((a, b) => b[0].length - a[0].length)[0];
      if (longest) return [longest[1]].flat().map((args) => ({ tool: name, arguments: withSchemas(args, body.tools) }));
      return [{ tool: name, arguments: sample(parameters) }];
    }),
  };
}

/** Puts in the place of `{"schema_of": tool}` what the model was told of that tool's parameters. */
function withSchemas(args, tools) {
  return Object.fromEntries(Object.entries(args).map(([name, value]) => {
    const asked = tools.find((tool) => value?.schema_of && tool.function.name.endsWith(`_${value.schema_of}`));
    return [name, asked ? asked.function.parameters : value];
  }));
}

function sample(schema) {
  const value = { string: "x", integer: 1, number: 1.5, boolean: true, array: [], object: {}, null: null };
  return Object.fromEntries((schema?.required ?? []).map((name) => [name, value[schema.properties?.[name]?.type] ?? "x"]));
}

function textOf(content) {
  if (typeof content === "string") return content;
  return (content ?? []).filter((part) => part.type === "text").map((part) => part.text).join("");
}

function parseScript(message) {
  if (message.role !== "user") return undefined;
  try {
    const script = JSON.parse(textOf(message.content));
    return script.turns || script.auto ? script : undefined;
  } catch { return undefined; }
}

const lastScriptAt = (messages) => messages.findLastIndex((message) => parseScript(message));
const findScript = (messages) => messages.map(parseScript).findLast(Boolean) ?? { turns: [{ text: "I have no script." }] };
const turnsSoFar = (messages) => messages.slice(lastScriptAt(messages) + 1).filter((message) => message.role === "assistant").length;
const toolTexts = (messages) => messages.slice(lastScriptAt(messages) + 1).filter((message) => message.role === "tool").map((message) => textOf(message.content));

/** What OpenAI would refuse, in words; `undefined` when nothing. */
function check(body) {
  if (body.model !== MODEL) return `model is ${body.model}`;
  if ("toolgate" in body) return "a field `toolgate` arrived";
  if (!Array.isArray(body.messages) || !body.messages.length) return "no messages";
  if (body.tools && !body.tools.length) return "tools is empty";
  if (body.tools?.length > 128) return `${body.tools.length} tools, 128 are allowed`;
  const names = new Set();
  for (const tool of body.tools ?? []) {
    if (tool.type !== "function") return `a tool of type ${tool.type} arrived`;
    if (!/^[a-zA-Z0-9_-]{1,64}$/.test(tool.function?.name ?? "")) return `the function name ${tool.function?.name} is not allowed`;
    if (names.has(tool.function.name)) return `two functions are named ${tool.function.name}`;
    names.add(tool.function.name);
    const { parameters } = tool.function;
    if (parameters && parameters.type !== "object") return `the schema of ${tool.function.name} is not of type object`;
  }
  if (!body.tools && (body.tool_choice || body.parallel_tool_calls !== undefined)) return "tool_choice or parallel_tool_calls without tools";
  let open = new Set();
  for (const message of body.messages) {
    if (message.role === "tool") {
      if (!open.delete(message.tool_call_id)) return `a tool message answers ${message.tool_call_id}, which is not open`;
      continue;
    }
    if (open.size) return `${[...open].join(", ")} were not answered before the next message`;
    if (message.role === "assistant") {
      if (message.tool_calls && !message.tool_calls.length) return "tool_calls is empty";
      for (const call of message.tool_calls ?? []) {
        if (call.type !== "function" || typeof call.function?.arguments !== "string") return "a tool call has the wrong form";
        open.add(call.id);
      }
      if (!message.tool_calls && (message.content === null || message.content === undefined)) return "an assistant message without content";
    }
  }
  return open.size ? `${[...open].join(", ")} were not answered` : undefined;
}

async function readJson(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return JSON.parse(Buffer.concat(chunks).toString());
}

function json(response, status, value, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", "x-request-id": "req_provider", ...headers });
  response.end(JSON.stringify(value));
}

const refuse = (response, status, error, headers) => json(response, status, { error: { param: null, code: null, ...error } }, headers);

// As a program of its own, for tests in other languages: prints its address and lives as long as its standard input.
if (process.argv[1] === import.meta.filename) {
  const provider = await startProvider();
  console.log(provider.url);
  process.stdin.resume();
  process.stdin.on("end", () => process.exit(0));
}
