// Clients of MCP, with a kept run as their server.
import assert from "node:assert/strict";
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { Client as LegacyClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as LegacyTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { completed, npmVersion, script, until } from "./harness.mjs";

const INFO = { name: "counterparts", version: "1" };
const add = { calls: [{ tool: "add", arguments: { a: 2, b: 40 } }] };

/** Adds their tests to the suite. `server` is an MCP server with the tool `add`. */
export async function mcpClients(tests, gateway, server) {
  const kept = async (more = {}, headers = {}) => {
    const answer = await completed(gateway, { messages: [script([{ text: "Ready." }]).message], store: true, ...more }, headers);
    return new URL(`${gateway.url}/${answer.value.id}/mcp`);
  };
  const ask = (turns) => ({ name: "ask", arguments: { message: script(turns).message.content } });

  /** The tests of one client; `connect(url, headers)` gives it connected, `call(client, params, options)` calls a tool. */
  async function asked(subject, connect, call) {
    await tests.test(subject, `${subject.title}: asks a kept run and is told of progress`, async () => {
      const client = await connect(await kept({ tools: [server] }), {});
      const { tools: [tool] } = await client.listTools();
      assert.equal(tool.name, "ask");
      assert.equal(tool.annotations.readOnlyHint, false);
      const told = [];
      const answer = await call(client, ask([add, { text: "It is {{tools}}." }]), { onprogress: (progress) => told.push(progress) });
      assert.deepEqual(answer.content, [{ type: "text", text: "It is sum=42." }]);
      assert.ok(told.some(({ message }) => message.startsWith("calling add")), JSON.stringify(told));
      assert.deepEqual(told.map(({ progress }) => progress), told.map((_, index) => index + 1));
      const quiet = await call(client, ask([{ text: "No progress." }]));
      assert.equal(quiet.content[0].text, "No progress.");
      await client.close();
    });

    await tests.test(subject, `${subject.title}: is told what failed, and asks on`, async () => {
      const client = await connect(await kept(), {});
      const failed = await call(client, ask([{ error: { status: 400, headers: {}, body: { message: "The provider refuses.", type: "t", code: "c" } } }]));
      assert.equal(failed.isError, true);
      assert.match(failed.content[0].text, /The provider refuses\./);
      await assert.rejects(call(client, { name: "ask", arguments: { question: "what?" } }), /-32602|question/);
      assert.equal((await call(client, ask([{ text: "Still here." }]))).content[0].text, "Still here.");
      await client.close();
    });

    await tests.test(subject, `${subject.title}: needs the key of a private run's own project`, async () => {
      const [own, other] = await Promise.all(["own", "other"].map(async (name) => {
        const project = `${subject.title.replaceAll(/\W+/g, "-").toLowerCase()}-${name}`;
        gateway.run("project", "create", project, "--proof", "app", "--verifier-url", "http://localhost:9/users");
        const headers = { authorization: `Bearer ${gateway.run("key", "create", "--project", project).match(/tgk_\w+/)[0]}` };
        // A running gateway looks for keys it does not know only now and then.
        await until("the key being known", async () => (await fetch(`${gateway.url}/v1/models`, { headers })).ok);
        return headers;
      }));
      const url = await kept({ toolgate: { visibility: "private" } }, own);
      const client = await connect(url, own);
      assert.equal((await call(client, ask([{ text: "Mine." }]))).content[0].text, "Mine.");
      await client.close();
      for (const headers of [{}, other, { authorization: "Bearer tgk_0123456789abcdefghjkmnpq" }]) await assert.rejects(connect(url, headers));
    });

    await tests.test(subject, `${subject.title}: leaves, and the request to the provider ends`, async () => {
      const client = await connect(await kept(), {});
      const { key, message } = script([{ text: "Never heard.", hang: true }]);
      const call_ = call(client, { name: "ask", arguments: { message: message.content } }).catch((failure) => failure);
      await until("the provider being asked", () => gateway.provider.seen(key).length === 1);
      await client.close();
      await until("the end of its request", () => gateway.provider.seen(key)[0].closed);
      await call_;
    });
  }

  const modern = tests.subject("mcp_client", "MCP TypeScript SDK 2, client", npmVersion("@modelcontextprotocol/client"), "@modelcontextprotocol/client",
    "2026-07-28: the tool, progress, failures, keys, leaving");
  await asked(modern, async (url, headers) => {
    const client = new ModernClient(INFO, { versionNegotiation: { mode: { pin: "2026-07-28" } } });
    await client.connect(new ModernTransport(url, { requestInit: { headers } }));
    assert.equal(client.getNegotiatedProtocolVersion(), "2026-07-28");
    return client;
  }, (client, params, options) => client.callTool(params, options));

  const legacy = tests.subject("mcp_client", "MCP TypeScript SDK 1, client", npmVersion("@modelcontextprotocol/sdk"), "@modelcontextprotocol/sdk",
    "2025-11-25: the tool, progress, failures, keys, leaving");
  await asked(legacy, async (url, headers) => {
    const client = new LegacyClient(INFO);
    await client.connect(new LegacyTransport(url, { requestInit: { headers } }));
    return client;
  }, (client, params, options) => client.callTool(params, undefined, options));
}
