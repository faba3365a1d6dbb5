// OpenAI's stored completions, as its SDK calls them.
import assert from "node:assert/strict";
import OpenAI from "openai";
import { MODEL, script } from "./harness.mjs";

/** Adds the tests to the SDK's. `server` is an MCP server with the tool `add`. */
export async function storedCompletions(tests, openai, gateway, server) {
  const sdk = (apiKey, base = "v1") => new OpenAI({ baseURL: `${gateway.url}/${base}`, apiKey, maxRetries: 0 });
  const client = sdk("any");
  const { model } = gateway;
  const add = { calls: [{ tool: "add", arguments: { a: 2, b: 40 } }] };
  const body = (metadata, turns, more) => ({ model, messages: [script(turns).message], store: true, metadata, ...more });
  const store = (metadata, { turns = [{ text: "Kept." }], by = client, ...more } = {}) => by.chat.completions.create(body(metadata, turns, more));
  const ids = async (pages) => { const all = []; for await (const { id } of pages) all.push(id); return all; };
  const isGone = (call) => assert.rejects(call, (error) => error instanceof OpenAI.NotFoundError && error.code === "run_not_found");

  await tests.test(openai, "a stored completion is retrieved as it was answered, and as lists show it", async () => {
    for (const toolgate of [{}, { output: "text" }]) {
      const turns = [add, { text: "It is {{tools}}." }];
      const { data: answer, response } = await client.chat.completions.create(body({ case: "whole" }, turns, { tools: [server], toolgate })).withResponse();
      assert.equal(response.headers.get("x-result-url"), `${gateway.url}/${answer.id}`);
      const kept = await client.chat.completions.retrieve(answer.id);
      for (const field of ["id", "object", "created", "model", "choices", "usage"]) assert.deepEqual(kept[field], answer[field], field);
      assert.deepEqual(kept.metadata, { case: "whole" });
      const { data } = await client.chat.completions.list({ metadata: { case: "whole" }, order: "desc", limit: 1 });
      assert.deepEqual(data, [kept]);
    }
  });

  await tests.test(openai, "a stored stream is retrieved with all that was streamed", async () => {
    const runner = client.chat.completions.stream(body({ case: "streamed" }, [{ text: "Let me see.", ...add }, { text: "It is {{tools}}." }], { tools: [server] }));
    const answer = await runner.finalChatCompletion();
    const kept = await client.chat.completions.retrieve(answer.id);
    assert.equal(kept.choices[0].message.content, answer.choices[0].message.content);
    assert.match(kept.choices[0].message.content, /^Let me see\.[^]*It is sum=42\.$/);
    assert.equal(kept.usage.total_tokens, 30);
  });

  await tests.test(openai, "lists turn their pages by themselves", async () => {
    const made = [];
    for (const number of [0, 1, 2, 3, 4]) made.push((await store({ list: "pages", odd: String(number % 2) })).id);
    await store({ list: "another" });
    const list = (query) => client.chat.completions.list({ metadata: { list: "pages" }, ...query });
    const page = await list({ limit: 2 });
    assert.deepEqual(page.data.map(({ id }) => id), made.slice(0, 2));
    assert.ok(page.hasNextPage());
    assert.deepEqual(await ids(list({ limit: 2 })), made);
    assert.deepEqual(await ids(list({ limit: 2, order: "desc" })), made.toReversed());
    assert.deepEqual(await ids(list({ limit: 1, after: made[2] })), made.slice(3));
    assert.deepEqual(await ids(list({ metadata: { list: "pages", odd: "1" } })), [made[1], made[3]]);
    assert.deepEqual(await ids(list({ model, limit: 4 })), made);
    assert.deepEqual(await ids(list({ model: "another/model" })), []);
    assert.deepEqual(await ids(list({ metadata: { list: "none" } })), []);
  });

  await tests.test(openai, "the messages of a stored completion are its questions", async () => {
    const asked = script([{ text: "Kept." }]).message;
    const messages = [{ role: "system", content: "Be brief." }, { role: "user", content: [{ type: "text", text: "In parts." }] }, asked];
    const { id } = await client.chat.completions.create({ model, messages, store: true });
    const kept = [];
    for await (const message of client.chat.completions.messages.list(id, { limit: 1 })) kept.push(message);
    assert.deepEqual(kept.map(({ role, content }) => [role, content]), [["system", "Be brief."], ["user", "In parts."], ["user", asked.content]]);
    assert.deepEqual(kept.map((message) => message.content_parts), [null, messages[1].content, null]);
    assert.deepEqual(await ids(client.chat.completions.messages.list(id, { limit: 2, order: "desc" })), kept.map((message) => message.id).toReversed());
  });

  await tests.test(openai, "metadata is replaced, and a deleted completion is gone", async () => {
    const { id } = await store({ state: "new", old: "yes" });
    const changed = await client.chat.completions.update(id, { metadata: { state: "read" } });
    assert.deepEqual([changed.id, changed.metadata], [id, { state: "read" }]);
    assert.deepEqual(await ids(client.chat.completions.list({ metadata: { state: "read" } })), [id]);
    assert.deepEqual(await ids(client.chat.completions.list({ metadata: { old: "yes" } })), []);
    await assert.rejects(client.chat.completions.update(id, { metadata: { state: 7 } }), OpenAI.BadRequestError);
    assert.deepEqual(await client.chat.completions.delete(id), { object: "chat.completion.deleted", id, deleted: true });
    await isGone(client.chat.completions.retrieve(id));
    await isGone(client.chat.completions.messages.list(id));
    await isGone(client.chat.completions.update(id, { metadata: {} }));
    await isGone(client.chat.completions.delete(id));
    assert.deepEqual(await ids(client.chat.completions.list({ metadata: { state: "read" } })), []);
  });

  await tests.test(openai, "projects see their own completions only", async () => {
    const [red, blue] = ["red", "blue"].map((project) => {
      gateway.run("project", "create", project, "--proof", "app", "--verifier-url", "http://localhost:9/users");
      return sdk(gateway.run("key", "create", "--project", project).match(/tgk_\w+/)[0]);
    });
    const { id } = await store({ case: "projects" }, { by: red });
    assert.deepEqual(await ids(red.chat.completions.list()), [id]);
    for (const other of [blue, client]) {
      assert.ok(!(await ids(other.chat.completions.list({ limit: 100 }))).includes(id));
      await isGone(other.chat.completions.retrieve(id));
      await isGone(other.chat.completions.messages.list(id));
      await isGone(other.chat.completions.update(id, { metadata: { case: "stolen" } }));
      await isGone(other.chat.completions.delete(id));
      await assert.rejects(ids(other.chat.completions.list({ after: id })), (error) => error.param === "after");
    }
    assert.deepEqual((await red.chat.completions.retrieve(id)).metadata, { case: "projects" });
  });

  await tests.test(openai, "a result's address is a base URL", async () => {
    const { id } = await store({ case: "prompt" }, { turns: [{ text: "Ready." }], tools: [server] });
    const direct = sdk("any", id);
    const { key, message } = script([add, { text: "It is {{tools}}." }]);
    const answer = await direct.chat.completions.create({ model: "", messages: [message] });
    assert.match(answer.choices[0].message.content, /It is sum=42\.$/);
    const [system, user] = gateway.provider.seen(key)[0].body.messages;
    assert.deepEqual([system.role, user], ["system", message]);
    assert.match(system.content, /Ready\./);
    assert.equal(gateway.provider.seen(key)[0].body.model, MODEL);
    const runner = direct.chat.completions.stream({ model, messages: [script([{ text: "Streamed." }]).message] });
    assert.equal(await runner.finalContent(), "Streamed.");
  });
}
