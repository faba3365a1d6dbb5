// MCP servers behind a login, each with an authorization server that nobody here wrote, and the way a person takes from
// the gateway's link to its success page. What an authorization server is asked for is known from what it prints.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { join } from "node:path";
import * as harness from "./harness.mjs";
import { Browser } from "./person.mjs";

/** What the process was asked for so far; with `what` only that. */
export function heard(child, what) {
  const all = [...child.text.matchAll(/^HEARD (\{.*\})$/gm)].map(([, json]) => JSON.parse(json));
  return what ? all.filter((one) => one.what === what) : all;
}

/** FastMCP with its own in-memory authorization server: agrees to everything at once. */
export async function fastmcp(name, seconds = 3600) {
  const { url, child } = await harness.startPythonServer(name, "fastmcp_oauth.py", ["memory", "--seconds", seconds]);
  const control = (action) => fetch(new URL(`/control/${action}`, url), { method: "POST" });
  return { url, as: child, tool: "whoami", control, agree: (browser, page) => page };
}

/** An oidc-provider, and as many FastMCP servers that trust it as there are `names`. */
export async function remote(name, { servers = 1, ca, ...options } = {}) {
  const { url: issuer, child } = await harness.startOwnServer(name, "authorization-server.mjs", [JSON.stringify(options)],
    { word: "ISSUER", env: ca ? { COUNTERPART_CA: ca } : {} });
  const urls = await Promise.all(Array.from({ length: servers }, async (_, index) =>
    (await harness.startPythonServer(`${name}-${index}`, "fastmcp_oauth.py", ["remote", "--issuer", issuer])).url));
  return {
    url: urls[0], urls, issuer, as: child, tool: "whoami",
    async agree(browser, page, { login = "alice", action } = {}) {
      for (let forms = 0; forms < 3 && page.url.startsWith(issuer) && page.forms.length; forms += 1) {
        const asked = page.forms[0].buttons[0].value;
        page = await browser.press(page, action && asked === "consent" ? action : asked, asked === "login" ? { login } : {});
      }
      return page;
    },
  };
}

/** An example of the TypeScript SDK with its demonstration authorization server, on ports it can name. */
export async function typescript(name, example, args, tool) {
  const [port, authorization] = [await harness.freePort(), await harness.freePort()];
  const file = join(harness.PACKAGES, "@modelcontextprotocol/sdk/dist/esm/examples/server", `${example}.js`);
  const { child } = await harness.startNodeServer(name, file, args, {
    env: { MCP_PORT: port, MCP_AUTH_PORT: authorization, COUNTERPART_KEEP_PORTS: "1", COUNTERPART_HEARD: "1" },
  });
  await Promise.all([port, authorization].map((one) => harness.until(`${name} on ${one}`, () => fetch(`http://127.0.0.1:${one}/`))));
  return { url: `http://localhost:${port}/mcp`, as: child, tool, agree: (browser, page) => page };
}

/** workers-oauth-provider in workerd, with a page that asks for consent. */
export async function workers(name) {
  const { url, child } = await harness.startOwnServer(name, "workers.mjs");
  return { url, as: child, tool: "whoami", agree: (browser, page) => (page.url.startsWith(new URL(url).origin) ? browser.press(page, "agree") : page) };
}

/** A completion with MCP servers that want a login, in the name of `user`. */
export function ask(gateway, urls, user, turns, { headers, ...options } = {}) {
  const { key, message } = harness.script(turns);
  const tools = [urls].flat().map((server_url, index) => ({ type: "mcp", server_label: `peer${index}`, server_url }));
  const body = { messages: [message], tools, user, ...options };
  return { key, message, body, answer: () => harness.completed(gateway, body, headers) };
}

/** The same, waiting without a stream: gives the link that the application is called back with, and the answer to come. */
export async function askAndWait(gateway, urls, user, turns) {
  let called;
  const told = new Promise((resolve) => { called = resolve; });
  const application = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    response.writeHead(204).end();
    const { type, data } = JSON.parse(Buffer.concat(chunks).toString());
    if (type === "authorization.requested") called({ ...data, headers: request.headers });
  });
  await new Promise((resolve) => application.listen(0, "127.0.0.1", resolve));
  const { port } = application.address();
  const answer = ask(gateway, urls, user, turns, { toolgate: { on_auth: "wait", authorization_callback_url: `http://127.0.0.1:${port}/hook` } }).answer();
  answer.catch(() => {}).finally(() => { application.close(); application.closeAllConnections(); });
  const early = answer.then((one) => { throw new Error(`it did not wait: ${one.content ?? JSON.stringify(one.error)}`); });
  return { event: await Promise.race([told, early]), answer };
}

/** The turns that call one tool and repeat what it said. */
export const calling = (tool, args = {}) => [{ calls: [{ tool, arguments: args }] }, { text: "It said: {{tools}}" }];

/** The links of an answer, having checked that it is one that asks for a login and cost no model anything. */
export function links(gateway, answer, key) {
  assert.equal(answer.status, 200, JSON.stringify(answer.error));
  const asked = answer.toolgate?.authorization_required ?? [];
  assert.ok(asked.length, `no login is asked for: ${answer.content}`);
  for (const { connect_url: link, resource } of asked) {
    assert.ok(link?.startsWith(`${gateway.publicUrl ?? gateway.url}/connect/`), `the link is ${link}`);
    assert.ok(answer.content.includes(link), answer.content);
    assert.ok(answer.content.includes(new URL(resource).host), answer.content);
    assert.ok(!link.includes(new URL(resource).port), "the link names the server");
  }
  if (key) assert.equal(gateway.provider.seen(key).length, 0, "the model was called");
  return asked;
}

/** Opens a link, agrees here and there, and ends on the success page. */
export async function connect(gateway, peer, link, { browser = new Browser(), ...choices } = {}) {
  const shown = await browser.open(link);
  assert.equal(shown.status, 200, shown.said);
  assert.ok(shown.said.includes(new URL(peer.url).host), shown.said);
  const page = await peer.agree(browser, await browser.press(shown, "continue"), choices);
  assert.ok(page.url.startsWith(gateway.publicUrl ?? gateway.url), `it ended at ${page.url}: ${page.said}`);
  return { browser, shown, page };
}

/** The same, and it must have worked. */
export async function connected(gateway, peer, link, options) {
  const done = await connect(gateway, peer, link, options);
  assert.equal(done.page.status, 200, done.page.said);
  assert.match(done.page.said, /authori[sz]ed|connected/i);
  return done;
}

/** Asks, goes through the link, asks again; gives the second answer. */
export async function loggedIn(gateway, peer, user, options) {
  const turns = calling(peer.tool, peer.arguments);
  const first = ask(gateway, peer.url, user, turns);
  const [{ connect_url: link }] = links(gateway, await first.answer(), first.key);
  const done = await connected(gateway, peer, link, options);
  return { ...done, link, answer: await ask(gateway, peer.url, user, turns).answer() };
}

/** The tool ran and the model said what it said. */
export function ran(answer, pattern) {
  assert.equal(answer.status, 200, JSON.stringify(answer.error));
  assert.deepEqual(answer.toolgate?.authorization_required ?? [], []);
  assert.match(answer.content, pattern);
}
