// Real MCP servers behind the gateway: every transport and revision in use, their results, and their failures.
import assert from "node:assert/strict";
import { join } from "node:path";
import { execFileSync } from "node:child_process";
import * as harness from "./harness.mjs";

const { script, npmVersion, PACKAGES, SOURCES } = harness;
const tests = harness.suite("servers");
const pypi = JSON.parse(execFileSync(harness.PYTHON, ["-c",
  "import json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in ['fastmcp', 'fastmcp-tasks', 'mcp']}))"]));
const RESULT_BYTES = 20_000;
const TOKEN = "static-token-canary";
const gateway = await harness.startGateway({ name: "gateway-servers", config: `[mcp]\nresult_bytes = ${RESULT_BYTES}\n` });
const everything = join(PACKAGES, "@modelcontextprotocol/server-everything/dist/index.js");
const example = (name) => join(PACKAGES, "@modelcontextprotocol/sdk/dist/esm/examples/server", `${name}.js`);

// What the servers' tools are called, and what they say. A server without an entry has no such tool.
const ours = {
  add: ["add", { a: 2, b: 40 }, "sum=42"],
  structured: ["weather", { city: "Oslo" }, "21"],
  picture: ["picture", {}],
  fails: ["refuse", {}, "the tool refused"],
};
const pythons = { ...ours, progress: ["count", { to: 3 }, "counted to 3"] };
const everythings = {
  add: ["get-sum", { a: 2, b: 40 }, "42"],
  structured: ["get-structured-content", { location: "New York" }, "temperature"],
  picture: ["get-tiny-image", {}],
  progress: ["trigger-long-running-operation", { duration: 0.4, steps: 4 }, "Long running operation completed"],
  links: ["get-resource-links", { count: 2 }, "Resource"],
  embedded: ["get-resource-reference", { resourceType: "Text", resourceId: 1 }, "resource"],
};
// The bridge below takes a cancelled call for one that still runs, and sends what the server asks from then on to that.
const asking = {
  ...everythings,
  page: ["trigger-url-elicitation", { url: "https://sign-in.example.com/start?for=somebody" }, "User completed the URL elicitation flow"],
  form: ["trigger-elicitation-request", {}, "User cancelled"],
};

const node = async (name, file, args, path, options) => `${(await harness.startNodeServer(name, file, args, options)).url}${path}`;
const python = async (name, file, ...args) => (await harness.startPythonServer(name, file, args)).url;
const everythingVersion = npmVersion("@modelcontextprotocol/server-everything");
const v1 = npmVersion("@modelcontextprotocol/sdk");

const starting = [
  ["server-everything, Streamable HTTP", everythingVersion, "2025-11-25, sessions", asking, node("everything-http", everything, ["streamableHttp"], "/mcp")],
  ["server-everything, HTTP+SSE", everythingVersion, "2024-11-05", asking, node("everything-sse", everything, ["sse"], "/sse")],
  ["server-everything, stdio", everythingVersion, `behind supergateway ${npmVersion("supergateway")}`, everythings, node("everything-stdio", join(PACKAGES, "supergateway/dist/index.js"),
    ["--stdio", `${process.execPath} ${everything} stdio`, "--outputTransport", "streamableHttp", "--stateful", "--logLevel", "none"], "/mcp")],
  ["FastMCP", pypi.fastmcp, "2026-07-28", pythons, python("fastmcp", "fastmcp_server.py")],
  ["FastMCP, HTTP+SSE", pypi.fastmcp, "2024-11-05", pythons, python("fastmcp-sse", "fastmcp_server.py", "--transport", "sse")],
  ["MCP Python SDK", pypi.mcp, "2026-07-28", pythons, python("python-sdk", "sdk_server.py")],
  ["MCP Python SDK, JSON answers", pypi.mcp, "2026-07-28", pythons, python("python-sdk-json", "sdk_server.py", "json")],
  ["MCP Python SDK, HTTP+SSE", pypi.mcp, "2024-11-05", pythons, python("python-sdk-sse", "sdk_server.py", "sse")],
  ["MCP TypeScript SDK 2", npmVersion("@modelcontextprotocol/server"), "2026-07-28",
    { ...ours, links: ["link", {}, "https://example.com/report.pdf"], embedded: ["embedded", {}, "the memo's text"] },
    node("typescript-sdk", join(SOURCES, "node/servers/typescript-sdk.mjs"), [], "/mcp", { nodeArgs: ["--import", join(SOURCES, "node/resolve.mjs")] })],
  ["MCP TypeScript SDK 1, sessions", v1, "2025-11-25", { add: ["greet", { name: "Ada" }, "Hello, Ada"] }, node("typescript-v1", example("simpleStreamableHttp"), [], "/mcp")],
  ["MCP TypeScript SDK 1, JSON answers", v1, "2025-11-25", { add: ["greet", { name: "Ada" }, "Hello, Ada"] }, node("typescript-v1-json", example("jsonResponseStreamableHttp"), [], "/mcp")],
  ["MCP TypeScript SDK 1, stateless", v1, "2025-11-25", { add: ["start-notification-stream", { interval: 10, count: 2 }, "Started sending"] }, node("typescript-v1-stateless", example("simpleStatelessStreamableHttp"), [], "/mcp")],
  ["MCP TypeScript SDK 1, HTTP+SSE", v1, "2024-11-05", { add: ["start-notification-stream", { interval: 10, count: 2 }, "Completed sending"] }, node("typescript-v1-sse", example("simpleSseServer"), [], "/mcp")],
  ["MCP TypeScript SDK 1, cut and resumed", v1, "2025-11-25, `Last-Event-ID`", { add: ["long-task", {}, "Long task completed"] }, node("typescript-v1-polling", example("ssePollingExample"), [], "/mcp")],
];
const servers = await Promise.all(starting.map(async ([title, version, note, tools, url]) => ({ title, version, note, tools, ...await harness.startWitness(await url) })));

const call = ([tool, args]) => ({ tool, arguments: args });
const asTool = (url, more = {}) => ({ type: "mcp", server_label: "srv", server_url: url, ...more });
/** Runs the turns with the tools; `told` is what the model was sent in its last turn. */
async function run(turns, tools, { send = harness.streamed, headers, ...more } = {}) {
  const { key, message } = script(turns);
  const seen = await send(gateway, { messages: [message], tools, ...more }, headers);
  const told = gateway.provider.seen(key).at(-1)?.body;
  return { ...seen, turns: gateway.provider.seen(key).length, told, toolText: JSON.stringify(told?.messages.filter((message) => message.role === "tool") ?? []) };
}
const answer = { text: "The end." };

for (const { title, version, note, tools, url, heard } of servers) {
  const subject = tests.subject("server", title, version, "", note);
  const test = (what, body) => tests.test(subject, `${title}: ${what}`, body);
  const host = new URL(url).host.replaceAll(".", "\\.");

  await test("a tool is found, called with the right arguments, and shown", async () => {
    const seen = await run([{ calls: [call(tools.add)] }, answer], [asTool(url)]);
    assert.equal(seen.error, undefined, JSON.stringify(seen.error));
    assert.match(seen.content, new RegExp(`<summary>🔧 ${tools.add[0]} \\(${host}\\)</summary>[^]*<summary>Result \\(±\\d+ tokens\\)</summary>[^]*${tools.add[2]}[^]*The end\\.$`, "u"));
    assert.match(seen.toolText, new RegExp(tools.add[2]));
    const event = seen.events.find((event) => event.event === "tool_call");
    assert.deepEqual(event.arguments, tools.add[1]);
    assert.equal(event.tool, tools.add[0]);
    assert.ok(seen.events.some((event) => event.event === "tool_result"));
    assert.equal(seen.finish, "stop");
    assert.deepEqual(seen.calls, []);
    assert.equal(seen.usage.total_tokens, 30);
  });
  await test("the answer that is not streamed says the same", async () => {
    const seen = await run([{ calls: [call(tools.add)] }, answer], [asTool(url)], { send: harness.completed });
    assert.equal(seen.error, undefined, JSON.stringify(seen.error));
    assert.match(seen.content, new RegExp(`${tools.add[2]}[^]*The end\\.$`));
    assert.equal(seen.toolgate.tool_calls.length, 1);
    assert.equal(seen.toolgate.turns, 2);
  });
  await test("two parallel calls are both answered", async () => {
    const seen = await run([{ calls: [call(tools.add), call(tools.add)] }, answer], [asTool(url)]);
    const told = seen.told.messages.filter((message) => message.role === "tool" && JSON.stringify(message.content).includes(tools.add[2]));
    assert.equal(told.length, 2, seen.toolText.slice(0, 600));
    assert.equal(seen.events.filter((event) => event.event === "tool_result").length, 2);
  });
  await test("a tool that does not exist is told to the model, and the run goes on", async () => {
    const seen = await run([{ calls: [{ tool: "srv_no_such_tool" }] }, answer], [asTool(url)]);
    assert.match(seen.content, /The end\.$/);
    assert.match(seen.toolText, /no_such_tool/);
  });
  await test(`it is spoken to as ${note} says, and every call is sent once`, async () => {
    heard.length = 0;
    const seen = await run([{ calls: [call(tools.add)] }, answer], [asTool(url)]);
    assert.match(seen.content, /The end\.$/);
    const sent = heard.filter(({ message }) => message?.method === "tools/call");
    assert.equal(sent.length, 1);
    const [{ headers, path, message }] = sent;
    const [revision] = note.match(/\d{4}-\d\d-\d\d/) ?? ["2025-11-25"];
    if (revision === "2024-11-05") assert.notEqual(path, new URL(url).pathname, "the call did not go to the endpoint announced on the stream");
    else assert.equal(headers["mcp-protocol-version"], revision);
    assert.equal(Boolean(message.params._meta?.["io.modelcontextprotocol/protocolVersion"]), revision === "2026-07-28");
    if (note.includes("sessions")) assert.ok(headers["mcp-session-id"], "no session");
    if (note.includes("Last-Event-ID")) assert.ok(heard.some(({ method, headers }) => method === "GET" && headers["last-event-id"]), "not resumed");
    // Servers built on these SDKs say that a tool list may not be kept (`ttlMs: 0`), so asking again is right there.
    const asked = heard.map(({ message }) => message?.method).filter((method) => ["initialize", "server/discover", "tools/list"].includes(method));
    assert.deepEqual(asked, revision === "2026-07-28" ? ["tools/list"] : [], "a warm request discovered the server again");
  });
  if (tools.structured) await test("structured content reaches the model", async () => {
    const seen = await run([{ calls: [call(tools.structured)] }, answer], [asTool(url)]);
    assert.match(seen.toolText, new RegExp(tools.structured[2]));
    assert.match(seen.content, /```json/);
  });
  if (tools.picture) await test("an image is named to the reader and given to the model", async () => {
    const seen = await run([{ calls: [call(tools.picture)] }, answer], [asTool(url)]);
    assert.match(seen.content, /image\/png/);
    assert.doesNotMatch(seen.content, /iVBOR/);
    assert.match(JSON.stringify(seen.told.messages), /"image_url":\{"url":"data:image\/png;base64,iVBOR/);
  });
  if (tools.fails) await test("a failed call is shown as an error and told to the model", async () => {
    const seen = await run([{ calls: [call(tools.fails)] }, answer], [asTool(url)]);
    assert.match(seen.content, /\*\*Error\*\*/);
    assert.match(seen.content, /The end\.$/);
    assert.match(seen.toolText, new RegExp(tools.fails[2]));
  });
  if (tools.progress) await test("a call that reports progress is answered", async () => {
    const seen = await run([{ calls: [call(tools.progress)] }, answer], [asTool(url)]);
    assert.match(seen.toolText, new RegExp(tools.progress[2]));
  });
  if (tools.links) await test("resource links are named to the model", async () => {
    const seen = await run([{ calls: [call(tools.links)] }, answer], [asTool(url)]);
    assert.match(seen.toolText, new RegExp(tools.links[2]));
  });
  if (tools.page) {
    const [tool, { url: page }, content] = tools.page;
    const wait = { toolgate: { on_auth: "wait", wait_seconds: 20 } };
    const asked = (errorPath) => [{ calls: [{ tool, arguments: { url: page, errorPath } }] }, answer];
    const shown = (seen) => seen.events.filter((event) => event.event === "authorization_required").map((event) => event.connect_url);
    const said = () => heard.map(({ message }) => message).filter((message) => message?.result?.action).map((message) => message.result.action);
    await test("a page that a tool wants opened in the middle of a call ends the run with its address", async () => {
      heard.length = 0;
      const seen = await run(asked(false), [asTool(url)]);
      assert.deepEqual(shown(seen), [page]);
      assert.equal(seen.turns, 1);
      assert.deepEqual(said(), ["accept"]);
    });
    await test("a page in the middle of a call is shown and the call goes on when the request waits", async () => {
      heard.length = 0;
      const seen = await run(asked(false), [asTool(url)], wait);
      assert.deepEqual(shown(seen), [page]);
      assert.match(seen.toolText, new RegExp(content));
      assert.match(seen.content, /The end\.$/);
      assert.deepEqual(said(), ["accept"]);
    });
    await test("a page that is a condition of the call (−32042) is shown, and the call made again when the request waits", async () => {
      assert.deepEqual(shown(await run(asked(true), [asTool(url)])), ["https://modelcontextprotocol.io/"]);
      const seen = await run([{ calls: [{ tool, arguments: { url: `${page}&again`, errorPath: true } }] }, answer], [asTool(url)], wait);
      assert.deepEqual(shown(seen), ["https://modelcontextprotocol.io/", `${page}&again`]);
      assert.match(seen.toolText, new RegExp(content));
    });
  }
  if (tools.form) await test("a form that nobody can fill in is cancelled, and the model told", async () => {
    const seen = await run([{ calls: [call(tools.form)] }, answer], [asTool(url)]);
    assert.match(seen.toolText, new RegExp(tools.form[2]));
    assert.match(seen.content, /The end\.$/);
  });
  if (tools.embedded) await test("embedded resources reach the model", async () => {
    const seen = await run([{ calls: [call(tools.embedded)] }, answer], [asTool(url)]);
    assert.match(seen.toolText, new RegExp(tools.embedded[2]));
  });
}

const byTitle = (title) => servers.find((server) => server.title === title).url;
const [fastmcp, typescript] = [byTitle("FastMCP"), byTitle("MCP TypeScript SDK 2")];
const results = tests.subject("server", "MCP TypeScript SDK 2, results and requests", npmVersion("@modelcontextprotocol/server"), "", "large, hostile and other results; several servers");
const result = (what, body) => tests.test(results, what, body);
const addCall = { calls: [{ tool: "add", arguments: { a: 2, b: 40 } }] };

await result("a large result is cut where it can be seen", async () => {
  const seen = await run([{ calls: [{ tool: "large", arguments: { bytes: 500_000 } }] }, answer], [asTool(typescript)]);
  assert.ok(seen.toolText.length < RESULT_BYTES + 2000, `${seen.toolText.length} bytes`);
  assert.ok(seen.content.length < RESULT_BYTES + 4000, `${seen.content.length} bytes`);
  for (const text of [seen.toolText, seen.content]) assert.match(text, /500[,.]?000/);
});
await result("hostile output stays in its block", async () => {
  const seen = await run([{ calls: [{ tool: "hostile" }] }, answer], [asTool(typescript)]);
  const lines = seen.content.split("\n");
  const fence = lines.map((line) => line.match(/^(`{3,})/)?.[1]).filter(Boolean).sort((a, b) => b.length - a.length)[0];
  assert.ok(fence.length > 4, "no fence longer than the one inside");
  const outside = seen.content.replace(new RegExp(`^${fence}[a-z]*\\n[^]*?\\n${fence}$`, "m"), "");
  assert.doesNotMatch(outside, /<script|javascript:/);
  assert.equal(outside.match(/<\/details>/g).length, 2);
  assert.doesNotMatch(seen.content, /[\u001b\u200b]/u);
});
await result("audio is named to the model", async () => {
  const seen = await run([{ calls: [{ tool: "sound" }] }, answer], [asTool(typescript)]);
  assert.match(seen.toolText, /audio\/wav/);
});
await result("a bug in the tool is told to the model", async () => {
  const seen = await run([{ calls: [{ tool: "throws" }] }, answer], [asTool(typescript)]);
  assert.match(seen.toolText, /a bug in the tool/);
  assert.match(seen.content, /\*\*Error\*\*/);
});
await result("arguments pass through exactly", async () => {
  const given = { text: "ü \u0000 \"quoted\" 🔧", big: 9007199254740991, deep: { list: [1, [2, { three: null }]], empty: {} }, half: 0.5 };
  const seen = await run([{ calls: [{ tool: "arguments", arguments: given }] }, answer], [asTool(typescript)]);
  assert.deepEqual(seen.events.find((event) => event.event === "tool_call").arguments, given);
  const told = seen.told.messages.find((message) => message.role === "tool").content;
  assert.match(told, /9007199254740991/);
  assert.match(told, /🔧/u);
});
await result("arguments that are not JSON are told to the model, and nothing is called", async () => {
  const seen = await run([{ calls: [{ tool: "add", raw: '{"a": 2, "b":' }] }, addCall, answer], [asTool(typescript)]);
  assert.match(seen.content, /\*\*Error\*\*[^]*sum=42[^]*The end\.$/);
  assert.equal(seen.turns, 3);
});
await result("several servers of one request keep their tools apart", async () => {
  const turn = { calls: [{ tool: "one_add", arguments: { a: 1, b: 1 } }, { tool: "two_add", arguments: { a: 2, b: 2 } }] };
  const seen = await run([turn, answer], [asTool(typescript, { server_label: "one" }), asTool(fastmcp, { server_label: "two" })]);
  const hosts = seen.events.filter((event) => event.event === "tool_call").map((event) => event.host);
  assert.deepEqual(hosts, [new URL(typescript).host, new URL(fastmcp).host]);
  assert.match(seen.toolText, /sum=2[^]*sum=4/);
});
await result("allowed_tools leaves only the tools named, or those that only read", async () => {
  const offered = async (allowed_tools) => (await run([answer], [asTool(typescript, { allowed_tools })])).told.tools.map((tool) => tool.function.name).sort();
  assert.deepEqual(await offered(["add", "link"]), ["srv_add", "srv_link"]);
  assert.deepEqual(await offered({ tool_names: ["picture"] }), ["srv_picture"]);
  assert.deepEqual(await offered({ read_only: true }), ["srv_add", "srv_weather"]);
});
await result("a second request is answered with the remembered tool list", async () => {
  const seen = await run([addCall, answer], [asTool(typescript)]);
  assert.match(seen.content, /sum=42/);
});

const guarded = tests.subject("server", "FastMCP behind a static token", pypi.fastmcp, "", "`authorization`, `headers`, `X-MCP-Authorization`, missing and wrong tokens");
const guardedUrl = await python("fastmcp-token", "fastmcp_server.py", "--token", TOKEN);
const guard = (what, body) => tests.test(guarded, what, body);
const [plainHost, guardedHost] = [new URL(fastmcp).host, new URL(guardedUrl).host];
const ways = [
  ["`authorization`", [asTool(guardedUrl, { authorization: TOKEN })], {}],
  ["`authorization` with its scheme", [asTool(guardedUrl, { authorization: `Bearer ${TOKEN}` })], {}],
  ["`headers`", [asTool(guardedUrl, { headers: { Authorization: `Bearer ${TOKEN}` } })], {}],
  ["X-MCP-Authorization", [asTool(guardedUrl)], { "X-MCP-Authorization": TOKEN }],
  ["X-MCP-Authorization with its scheme", [asTool(guardedUrl)], { "X-MCP-Authorization": `Bearer ${TOKEN}` }],
  ["X-MCP-Authorization as host=value among several servers", [asTool(guardedUrl), asTool(fastmcp, { server_label: "open" })], { "X-MCP-Authorization": `${guardedHost}=${TOKEN}` }],
];
for (const [how, tools, headers] of ways) {
  await guard(`a protected server is used with ${how}`, async () => {
    const seen = await run([{ calls: [{ tool: "srv_add", arguments: { a: 2, b: 40 } }] }, answer], tools, { headers });
    assert.equal(seen.error, undefined, JSON.stringify(seen.error));
    assert.match(seen.content, /sum=42/);
    assert.equal(JSON.stringify(seen.told).includes(TOKEN), false, "the model saw the token");
    assert.equal(seen.text.includes(TOKEN), false, "the answer holds the token");
  });
}
for (const other of [plainHost, "other.example.com", "other.example.com:8443", "localhost", "OTHER.Example.com"]) {
  await guard(`a credential for ${other.replace(/\d+$/, "…")} does not reach another host`, async () => {
    const seen = await run([answer], [asTool(guardedUrl)], { headers: { "X-MCP-Authorization": `${other}=${TOKEN}` } });
    assert.equal(seen.status, 400, `status ${seen.status}: ${JSON.stringify(seen.events)}`);
    assert.match(seen.error.message, /X-MCP-Authorization/i);
    assert.equal(JSON.stringify(seen.error).includes(TOKEN), false, "the error holds the token");
  });
}
for (const [what, more] of [["without a credential", {}], ["with a wrong credential", { authorization: "wrong" }]]) {
  await guard(`a protected server ${what} gives one clear notice, streamed and not`, async () => {
    const seen = await run([answer], [asTool(guardedUrl, more)]);
    assert.equal(seen.error, undefined, JSON.stringify(seen.error));
    const required = seen.events.filter((event) => event.event === "authorization_required");
    assert.equal(required.length, 1);
    const data = required[0].authorization_required ?? required[0];
    assert.equal([data].flat()[0].resource, guardedUrl);
    assert.match(seen.content, new RegExp(guardedHost.replaceAll(".", "\\.")));
    assert.match(seen.content, /authorization/i);
    const whole = await run([answer], [asTool(guardedUrl, more)], { send: harness.completed });
    assert.equal(whole.toolgate.authorization_required.length, 1);
    assert.equal(whole.toolgate.authorization_required[0].resource, guardedUrl);
  });
}

const many = tests.subject("server", "FastMCP with 1,000 tools", pypi.fastmcp, "", "refused with a reason, or used through `allowed_tools`");
const manyUrl = await python("fastmcp-many", "fastmcp_server.py", "--tools", "1000");
await tests.test(many, "1,000 tools are refused clearly, naming the server", async () => {
  const seen = await run([answer], [asTool(manyUrl)]);
  assert.equal(seen.status, 400);
  assert.match(seen.error.message, /at most 128: `srv` has 1[,.]?00\d/);
  assert.match(seen.error.message, /allowed_tools/);
  assert.equal(seen.turns, 0, "the provider was asked all the same");
});
await tests.test(many, "1,000 tools work with the few that allowed_tools names", async () => {
  const seen = await run([{ calls: [{ tool: "tool_0999", arguments: { text: "last one" } }] }, answer], [asTool(manyUrl, { allowed_tools: ["tool_0999"] })]);
  assert.equal(seen.error, undefined, JSON.stringify(seen.error));
  assert.match(seen.content, /last one[^]*The end\.$/);
});

const tasks = await harness.startWitness(await python("fastmcp-tasks", "fastmcp_tasks_server.py"));
const tasked = tests.subject("server", "FastMCP, tasks", `${pypi.fastmcp}, fastmcp-tasks ${pypi["fastmcp-tasks"]}`, "", "`io.modelcontextprotocol/tasks`: results, failures, pages, forms, cancelling");
/** A test during which the server hears what `heard` gives, by method. */
const task = (what, body) => tests.test(tasked, what, () => {
  tasks.heard.length = 0;
  return body((method) => tasks.heard.filter(({ message }) => message?.method === method));
});
await task("a call that becomes a task is asked about until its result is there", async (heard) => {
  const seen = await run([{ calls: [call(["count", { to: 6 }])] }, answer], [asTool(tasks.url)]);
  assert.match(seen.toolText, /counted to 6/);
  assert.match(seen.content, /counted to 6[^]*The end\.$/);
  assert.ok(seen.events.some((event) => event.event === "tool_progress" && /^at \d$/.test(event.message)), JSON.stringify(seen.events));
  assert.equal(heard("tools/call").length, 1);
  const asked = heard("tasks/get");
  assert.ok(asked.length > 2, `asked ${asked.length} times`);
  const id = asked[0].message.params.taskId;
  for (const { headers, message } of asked) assert.deepEqual([headers["mcp-name"], message.params.taskId], [id, id]);
  for (const text of [JSON.stringify(seen.told), seen.text]) assert.equal(text.includes(id), false, "the task's name left the gateway");
});
await task("a tool that may be a task or not is answered", async () => {
  assert.match((await run([{ calls: [call(ours.add), call(ours.add)] }, answer], [asTool(tasks.url)])).toolText, /sum=42[^]*sum=42/);
});
await task("a task whose tool fails is shown as an error and told to the model", async () => {
  const seen = await run([{ calls: [call(ours.fails)] }, answer], [asTool(tasks.url)]);
  assert.match(seen.content, /\*\*Error\*\*[^]*The end\.$/);
  assert.match(seen.toolText, /the tool refused/);
});
await task("a form that a task wants filled in is cancelled, and the model told", async (heard) => {
  const seen = await run([{ calls: [call(["ask", { mode: "form" }])] }, answer], [asTool(tasks.url)]);
  assert.match(seen.toolText, /the form was answered with cancel/);
  assert.equal(heard("tasks/update").length, 1);
});
const taskPage = "https://sign-in.example.com/task?for=somebody";
await task("a page that a task wants opened is shown, and the task goes on, when the request waits", async (heard) => {
  const seen = await run([{ calls: [call(["ask", { mode: "page" }])] }, answer], [asTool(tasks.url)], { toolgate: { on_auth: "wait", wait_seconds: 20 } });
  assert.deepEqual(seen.events.filter((event) => event.event === "authorization_required").map((event) => event.connect_url), [taskPage]);
  assert.match(seen.toolText, /the page was answered with accept/);
  assert.deepEqual([heard("tools/call").length, heard("tasks/cancel").length], [1, 0]);
});
await task("a page that a task wants opened otherwise ends the run with its address, and the task", async (heard) => {
  const seen = await run([{ calls: [call(["ask", { mode: "page" }])] }, answer], [asTool(tasks.url)]);
  assert.deepEqual(seen.events.filter((event) => event.event === "authorization_required").map((event) => event.connect_url), [taskPage]);
  assert.equal(seen.turns, 1);
  await harness.until("the task is cancelled", () => heard("tasks/cancel").length === 1);
});
await task("a client that hangs up cancels the task, which the server stops", async (heard) => {
  const { message } = script([{ calls: [call(["endless", {}])] }, answer]);
  const leaving = new AbortController();
  const response = await fetch(`${gateway.url}/v1/chat/completions`, {
    method: "POST", headers: { "content-type": "application/json" }, signal: leaving.signal,
    body: JSON.stringify({ model: gateway.model, stream: true, messages: [message], tools: [asTool(tasks.url)] }),
  });
  await harness.until("the task is asked about", () => heard("tasks/get").length > 0);
  leaving.abort();
  await response.text().catch(() => {});
  await harness.until("the task is cancelled", () => heard("tasks/cancel").length === 1);
  assert.equal(heard("tools/call").length, 1);
  const ended = await run([{ calls: [call(["what_ended", {}])] }, answer], [asTool(tasks.url)]);
  assert.match(ended.toolText, /ended: endless/);
});

const failing = tests.subject("server", "server-everything, killed in the middle of a call", everythingVersion, "", "the run goes on; unreachable servers");
await tests.test(failing, "a server that dies in the middle of a call is told to the model, and the run goes on", async () => {
  const dying = await harness.startNodeServer("everything-dying", everything, ["streamableHttp"]);
  const { message } = script([{ calls: [{ tool: "trigger-long-running-operation", arguments: { duration: 60, steps: 60 } }] }, { text: "It said: {{tools}}" }]);
  const response = await fetch(`${gateway.url}/v1/chat/completions`, {
    method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: gateway.model, stream: true, messages: [message], tools: [asTool(`${dying.url}/mcp`)] }),
  });
  let text = "";
  for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    if (text.includes('"tool_call"')) dying.child.kill("SIGKILL");
  }
  const seen = harness.inspect(text.split("\n").filter((line) => line.startsWith("data: {")).map((line) => JSON.parse(line.slice(6))));
  assert.match(seen.content, /\*\*Error\*\*[^]*It said: \S/);
  assert.equal(seen.finish, "stop");
});
await tests.test(failing, "an unreachable server is a 424 that names it, before any model call", async () => {
  const seen = await run([answer], [asTool("http://127.0.0.1:9/mcp")]);
  assert.equal(seen.status, 424);
  assert.match(seen.error.message, /127\.0\.0\.1:9/);
  assert.equal(seen.turns, 0);
});
await tests.test(failing, "an unreachable optional server is a notice, and the run goes on", async () => {
  const seen = await run([addCall, answer], [asTool("http://127.0.0.1:9/mcp", { optional: true, server_label: "gone" }), asTool(fastmcp)]);
  assert.match(seen.content, /127\.0\.0\.1:9[^]*sum=42[^]*The end\.$/);
  assert.ok(seen.events.some((event) => event.event === "notice"));
});
await tests.test(failing, "an address that is no MCP server is a 424 that names it", async () => {
  const seen = await run([answer], [asTool(`${new URL(typescript).origin.replace(/\d+$/, new URL(gateway.url).port)}/healthz`)]);
  assert.equal(seen.status, 424);
});
await tests.test(guarded, "the gateway's log holds no credential and no panic", async () => {
  assert.doesNotMatch(gateway.child.text, new RegExp(`${TOKEN}|${harness.PROVIDER_KEY}`));
  assert.doesNotMatch(gateway.child.text, /panicked/);
});

await tests.finish();
