// Logging in to MCP servers as a person does: the request, its link, the pages, consent, and the request again, against
// authorization servers that nobody here wrote. What reached them is counted there.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer as createSecureServer } from "node:https";
import { request as forward } from "node:http";
import { join } from "node:path";
import * as harness from "./harness.mjs";
import { Browser } from "./person.mjs";
import { ask, askAndWait, calling, connect, connected, fastmcp, heard, links, loggedIn, ran, remote, typescript, workers } from "./protected.mjs";

const { until, npmVersion } = harness;
const tests = harness.suite("connections");
const pypi = (name) => execFileSync(harness.PYTHON, ["-c", `import importlib.metadata as m; print(m.version('${name}'))`]).toString().trim();
const certificate = mkdtempSync(join(harness.SCRATCH, "certificate-"));
const [keyFile, certificateFile] = [join(certificate, "key.pem"), join(certificate, "cert.pem")];
execFileSync(harness.PYTHON, [join(harness.SOURCES, "python/certificate.py"), keyFile, certificateFile]);
harness.atEnd(() => rmSync(certificate, { recursive: true }));
const ca = readFileSync(certificateFile);

/** TLS before a gateway on `port`; gives its public address. */
async function secured() {
  let port;
  const server = createSecureServer({ key: readFileSync(keyFile), cert: ca }, (request, response) => {
    const onward = forward({ host: "127.0.0.1", port, method: request.method, path: request.url, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    request.pipe(onward);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  harness.atEnd(() => { server.close(); server.closeAllConnections(); });
  return { url: `https://localhost:${server.address().port}`, lead: (to) => { port = to; } };
}

const CONFIDENTIAL = { client_id: "toolgate-desk", client_secret: "s3cret:with/odd+characters%" };
const SHORT = 4;
const listen = await harness.freePort();
const front = await secured();
const [memory, fleeting, issuer, brief, documents, worker, demo, elicitation] = await Promise.all([
  fastmcp("fastmcp-oauth"),
  fastmcp("fastmcp-brief", SHORT),
  remote("oidc", { servers: 2 }),
  remote("oidc-brief", {
    accessSeconds: SHORT, registration: false,
    clients: [{ ...CONFIDENTIAL, token_endpoint_auth_method: "client_secret_basic", grant_types: ["authorization_code", "refresh_token"], redirect_uris: [`http://127.0.0.1:${listen}/oauth/callback`] }],
  }),
  remote("oidc-documents", { ca: certificateFile, registration: false, ack: "draft-02" }),
  workers("workers"),
  typescript("typescript-oauth", "simpleStreamableHttp", ["--oauth", "--oauth-strict"], "greet"),
  typescript("typescript-elicitation", "elicitationUrlExample", [], "payment-confirm"),
]);
demo.arguments = { name: "Ada" };
elicitation.arguments = { cartId: "cart-7" };

const gateway = await harness.startGateway({
  name: "gateway-connections", listen,
  config: `[[oauth_clients]]\nissuer = "${brief.issuer}"\nclient_id = "${CONFIDENTIAL.client_id}"\nclient_secret = '${CONFIDENTIAL.client_secret}'\nauth_method = "client_secret_basic"\nresources = ["${new URL(brief.url).host}"]\n`,
});
const hosted = await harness.startGateway({ name: "gateway-secured", config: `public_url = "${front.url}"\n` });
hosted.publicUrl = front.url;
front.lead(hosted.port);

let people = 0;
const somebody = () => `person-${++people}`;
const api = async (path, init = {}, at = gateway) => {
  const response = await fetch(`${at.url}/v1/connections${path}`, { ...init, headers: { "content-type": "application/json" } });
  const text = await response.text();
  return { status: response.status, ...(text && JSON.parse(text)) };
};
const connections = async (user) => (await api(`?user=${user}`)).data;

/** What every server behind a login must do, whoever wrote it. */
async function journey(subject, name, peer, said) {
  await tests.test(subject, `${name}: the link leads through consent to the tool`, async () => {
    const user = somebody();
    const request = ask(gateway, peer.url, user, calling(peer.tool, peer.arguments));
    const before = heard(peer.as).filter(({ what }) => /regist|authori|code|token/i.test(what) && !/well-known/.test(what)).length;
    const [{ connect_url: link }] = links(gateway, await request.answer(), request.key);
    for (let previews = 0; previews < 2; previews += 1) assert.equal((await new Browser().open(link)).status, 200);
    assert.equal(heard(peer.as).filter(({ what }) => /regist|authori|code|token/i.test(what) && !/well-known/.test(what)).length, before, "looking at the link reached the authorization server");
    const { page } = await connected(gateway, peer, link);
    assert.ok(page.said.includes(new URL(peer.url).host), page.said);
    ran(await request.answer(), said);
  });

  await tests.test(subject, `${name}: the same link again says that it is done`, async () => {
    const { link, browser } = await loggedIn(gateway, peer, somebody());
    const [again, stranger] = [await browser.open(link), await new Browser().open(link)];
    for (const page of [again, stranger]) {
      assert.ok(!page.forms.some((form) => form.buttons.some((button) => button.value === "continue")), page.said);
    }
  });

  await tests.test(subject, `${name}: a stream that waits goes on after the click`, async () => {
    const { body } = ask(gateway, peer.url, somebody(), calling(peer.tool, peer.arguments), { toolgate: { on_auth: "wait" } });
    const response = await fetch(`${gateway.url}/v1/chat/completions`, {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ model: gateway.model, stream: true, stream_options: { include_usage: true }, ...body }),
    });
    assert.equal(response.status, 200);
    let text = "";
    const reading = (async () => { for await (const piece of response.body) text += Buffer.from(piece).toString(); })();
    const link = await until("the link", () => text.match(/https?:\/\/[\w.:]+\/connect\/[\w-]+/)?.[0]);
    await connected(gateway, peer, link);
    await reading;
    const data = text.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
    assert.equal(data.pop(), "[DONE]");
    const { content, finish, events } = harness.inspect(data.map((line) => JSON.parse(line)));
    assert.match(content, said);
    assert.equal(finish, "stop");
    assert.ok(events.some(({ event }) => event === "authorized"), JSON.stringify(events));
  });

  await tests.test(subject, `${name}: a request without a stream waits, too, and its application is told the link`, async () => {
    const user = somebody();
    const { event, answer } = await askAndWait(gateway, peer.url, user, calling(peer.tool, peer.arguments));
    assert.equal(event.user, user);
    assert.ok(event.headers["webhook-id"] && event.headers["webhook-timestamp"] && event.headers["webhook-signature"], JSON.stringify(event.headers));
    await connected(gateway, peer, event.url);
    ran(await answer, said);
  });

  await tests.test(subject, `${name}: declined on our page, nothing is stored`, async () => {
    const user = somebody();
    const turns = calling(peer.tool, peer.arguments);
    const [{ connect_url: link }] = links(gateway, await ask(gateway, peer.url, user, turns).answer());
    const browser = new Browser();
    const page = await browser.press(await browser.open(link), "decline");
    assert.match(page.said, /declined/i);
    assert.deepEqual(await connections(user), []);
    const [{ connect_url: another }] = links(gateway, await ask(gateway, peer.url, user, turns).answer());
    assert.notEqual(another, link);
  });

  await tests.test(subject, `${name}: nobody else's request uses the login`, async () => {
    const user = somebody();
    const { answer } = await loggedIn(gateway, peer, user);
    ran(answer, said);
    const turns = calling(peer.tool, peer.arguments);
    const stranger = ask(gateway, peer.url, somebody(), turns);
    links(gateway, await stranger.answer(), stranger.key);
    const profile = ask(gateway, peer.url, user, turns, { toolgate: { profile: "work" } });
    links(gateway, await profile.answer(), profile.key);
  });

  await tests.test(subject, `${name}: a restart keeps the login`, async () => {
    const user = somebody();
    await loggedIn(gateway, peer, user);
    await gateway.restart();
    ran(await ask(gateway, peer.url, user, calling(peer.tool, peer.arguments)).answer(), said);
  });
}

/** Ends the connection of `user` in one of the ways there are, and sees it end there, too. */
async function revoked(peer, user, end, arrived) {
  const before = heard(peer.as, arrived).length;
  const [{ id }] = await connections(user);
  await end(id);
  await until(`the ${arrived} there`, () => heard(peer.as, arrived).length > before);
  const request = ask(gateway, peer.url, user, calling(peer.tool, peer.arguments));
  links(gateway, await request.answer(), request.key);
}
const deleted = async (id) => assert.ok((await api(`/${id}`, { method: "DELETE" })).status < 300);

const many = (peer, user, count = 8) => Promise.all(Array.from({ length: count }, () => ask(gateway, peer.url, user, calling(peer.tool, peer.arguments)).answer()));

// FastMCP, its own authorization server
const fastmcpVersion = pypi("fastmcp");
const own = tests.subject("authorization", "FastMCP, InMemoryOAuthProvider", fastmcpVersion, "pypi", "server and authorization server at one origin, registration with scopes, refresh, revocation, issuer with a trailing slash");
await journey(own, "FastMCP", memory, /you are [\w-]+ with notes:read/);

const visitor = somebody();
let expires;
await tests.test(own, "FastMCP: a token of few seconds will do for the answer", async () => {
  ran((await loggedIn(gateway, fleeting, visitor)).answer, /you are/);
  expires = Date.now() + (SHORT + 1) * 1000;
});

await tests.test(own, "FastMCP: many requests whose token was withdrawn refresh it once", async () => {
  const user = somebody();
  await loggedIn(gateway, memory, user);
  const before = heard(memory.as, "refresh").length;
  await memory.control("withdraw");
  for (const answer of await many(memory, user)) ran(answer, /you are/);
  assert.equal(heard(memory.as, "refresh").length - before, 1);
});

await tests.test(own, "FastMCP: a login that cannot be refreshed is asked for again, and works again", async () => {
  const user = somebody();
  await loggedIn(gateway, memory, user);
  await memory.control("forget");
  const request = ask(gateway, memory.url, user, calling("whoami"));
  const [{ connect_url: link, reason }] = links(gateway, await request.answer());
  assert.match(reason, /withdrawn/);
  await connected(gateway, memory, link);
  ran(await request.answer(), /you are/);
});

await tests.test(own, "FastMCP: a client that was forgotten registers again", async () => {
  const user = somebody();
  await loggedIn(gateway, memory, user);
  const before = heard(memory.as, "register").length;
  await memory.control("amnesia");
  const request = ask(gateway, memory.url, user, calling("whoami"));
  const [{ connect_url: link }] = links(gateway, await request.answer());
  await connected(gateway, memory, link);
  ran(await request.answer(), /you are/);
  assert.equal(heard(memory.as, "register").length - before, 1);
});

await tests.test(own, "FastMCP: a connection deleted through the API is revoked there", async () => {
  const user = somebody();
  await loggedIn(gateway, memory, user);
  await revoked(memory, user, deleted, "revoke");
});

await tests.test(own, "FastMCP: a connection revoked on the command line is revoked there", async () => {
  const user = somebody();
  await loggedIn(gateway, memory, user);
  await revoked(memory, user, (id) => gateway.run("connections", "revoke", id), "revoke");
});

await tests.test(own, "FastMCP: an expired token is never shown, since that would end the login there", async () => {
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, expires - Date.now()))); // the token's life, which is what is tested
  const before = heard(fleeting.as, "refresh").length;
  for (const answer of await many(fleeting, visitor)) ran(answer, /you are/);
  assert.equal(heard(fleeting.as, "refresh").length - before, 1);
});

// FastMCP, tokens of oidc-provider
const oidc = npmVersion("oidc-provider");
const theirs = tests.subject("authorization", "oidc-provider, for FastMCP", `${oidc} and ${fastmcpVersion}`, "npm", "separate server, registration, client documents, a confidential client, `iss`, tokens for one audience, rotation with reuse detection");
await journey(theirs, "oidc-provider", issuer, /you are alice with notes:read/);

await tests.test(theirs, "oidc-provider: consent refused there is said in our words", async () => {
  const user = somebody();
  const [{ connect_url: link }] = links(gateway, await ask(gateway, issuer.url, user, calling("whoami")).answer());
  const { page } = await connect(gateway, issuer, link, { action: "abort" });
  assert.match(page.said, /declined|refused|not connected/i);
  assert.doesNotMatch(page.text, /said the person/);
  assert.deepEqual(await connections(user), []);
});

await tests.test(theirs, "oidc-provider: one link connects two servers, each with a token of its own", async () => {
  const user = somebody();
  const request = ask(gateway, issuer.urls, user, [{ calls: [{ tool: "peer0_whoami" }, { tool: "peer1_whoami" }] }, { text: "It said: {{tools}}" }]);
  const answer = await request.answer();
  assert.equal(links(gateway, answer, request.key).length, 2);
  const all = answer.toolgate.connect_all_url;
  assert.ok(answer.content.includes(all), answer.content);
  const browser = new Browser();
  let page = await browser.open(all);
  for (let servers = 0; servers < 2; servers += 1) {
    if (!page.forms.some((form) => form.buttons.some((button) => button.value === "continue"))) page = await browser.follow(page, "/connect/");
    page = await issuer.agree(browser, await browser.press(page, "continue"));
  }
  const audiences = new Set(heard(issuer.as, "code").slice(-2).map(({ resource }) => resource));
  assert.deepEqual([...audiences].sort(), [...issuer.urls].sort());
  const done = await request.answer();
  ran(done, /you are alice/);
  assert.equal(done.toolgate.tool_calls.length, 2);
});

await tests.test(theirs, "oidc-provider: a deleted connection takes its grant along", async () => {
  const user = somebody();
  await loggedIn(gateway, issuer, user);
  await revoked(issuer, user, deleted, "revoke");
});

await tests.test(theirs, "oidc-provider: a confidential client of the operator refreshes after a restart, without ever using a token twice", async () => {
  const user = somebody();
  const { answer } = await loggedIn(gateway, brief, user);
  ran(answer, /you are alice/);
  assert.deepEqual(heard(brief.as, "register"), []);
  const refused = () => heard(brief.as).filter(({ what }) => what === "refused" || what === "grant revoked");
  for (let generation = 0; generation < 2; generation += 1) {
    if (generation === 0) await gateway.restart();
    await new Promise((resolve) => setTimeout(resolve, (SHORT + 1) * 1000)); // the time of the token's life, which is what is tested
    const before = heard(brief.as, "refresh").length;
    for (const one of await many(brief, user, 6)) ran(one, /you are alice/);
    assert.equal(heard(brief.as, "refresh").length - before, 1);
  }
  assert.deepEqual(refused(), []);
  assert.deepEqual(new Set(heard(brief.as, "refresh").map(({ client, method, resource }) => `${client} ${method} ${resource}`)), new Set([`${CONFIDENTIAL.client_id} client_secret_basic ${brief.url}`]));
});

await tests.test(theirs, "oidc-provider: our client document is fetched and believed", async () => {
  const user = somebody();
  const request = ask(hosted, documents.url, user, calling("whoami"));
  const [{ connect_url: link }] = links(hosted, await request.answer(), request.key);
  await connected(hosted, documents, link, { browser: new Browser({ ca }) });
  ran(await request.answer(), /you are alice/);
  assert.deepEqual(new Set(heard(documents.as, "client document").map(({ url }) => url)), new Set([`${front.url}/oauth/client-metadata.json`]));
  assert.equal(heard(documents.as, "code").at(-1).client, `${front.url}/oauth/client-metadata.json`);
});

// workers-oauth-provider
const cloudflare = tests.subject("authorization", "workers-oauth-provider in workerd", `${npmVersion("@cloudflare/workers-oauth-provider")} and ${npmVersion("workerd")}`, "npm", "registration, rotation, `iss`, step-up, revocation at the token endpoint");
await journey(cloudflare, "workers-oauth-provider", worker, /you are wanda with notes:read/);

await tests.test(cloudflare, "workers-oauth-provider: a call that needs more asks for it all, and then runs", async () => {
  const user = somebody();
  const { answer } = await loggedIn(gateway, worker, user);
  ran(answer, /you are wanda with notes:read/);
  const request = ask(gateway, worker.url, user, calling("write_note", { text: "milk" }));
  const [{ connect_url: link, scopes }] = links(gateway, await request.answer());
  assert.ok(["notes:read", "notes:write"].every((scope) => scopes.includes(scope)), scopes.join(" "));
  const { shown } = await connected(gateway, worker, link);
  assert.match(shown.said, /notes:write/);
  ran(await request.answer(), /wrote milk/);
});

await tests.test(cloudflare, "workers-oauth-provider: a call that needs more waits for it in the middle of the run", async () => {
  const user = somebody();
  await loggedIn(gateway, worker, user);
  const { event, answer } = await askAndWait(gateway, worker.url, user, calling("write_note", { text: "bread" }));
  await connected(gateway, worker, event.url);
  ran(await answer, /wrote bread/);
});

await tests.test(cloudflare, "workers-oauth-provider: a deleted connection is revoked there", async () => {
  const user = somebody();
  await loggedIn(gateway, worker, user);
  await revoked(worker, user, deleted, "revoke");
});

// The TypeScript SDK's demonstration
const sdk = tests.subject("authorization", "MCP TypeScript SDK 1, demonstration authorization server", npmVersion("@modelcontextprotocol/sdk"), "npm", "separate server, `resource` taken literally, issuer with a trailing slash, no refresh token, −32042");
await journey(sdk, "TypeScript SDK", demo, /Hello, Ada!/);

await tests.test(sdk, "TypeScript SDK: a page that a tool wants opened is shown with its whole address, and never opened", async () => {
  const { answer } = await loggedIn(gateway, elicitation, somebody());
  const shown = answer.toolgate.authorization_required.map(({ connect_url: link }) => link).join(" ") + answer.content;
  const { host } = new URL(elicitation.url);
  assert.match(shown, new RegExp(`http://${host}/confirm-payment\\?session=[\\w-]+&elicitation=[\\w-]+&cartId=cart-7`));
  assert.ok(answer.content.includes(host));
  assert.equal(heard(elicitation.as, "GET /confirm-payment").length, 0);
});

// All of them
const gatewayItself = tests.subject("authorization", "together", "", "", "several missing logins of one request, `toolgate doctor`, no secret where it does not belong");

await tests.test(gatewayItself, "with `fail` every missing login is in one 401, and nothing is stored or sent to the model", async () => {
  const user = somebody();
  const peers = [memory, issuer, worker, demo];
  const request = ask(gateway, peers.map(({ url }) => url), user, calling("whoami"), { toolgate: { on_auth: "fail" } });
  const { status, error, headers } = await request.answer();
  assert.equal(status, 401, JSON.stringify(error));
  assert.equal(error.type, "auth_required");
  assert.deepEqual(error.providers.map(({ url }) => url).sort(), peers.map(({ url }) => url).sort());
  for (const { login_url: link } of error.providers) assert.ok(link.startsWith(`${gateway.url}/connect/`), link);
  assert.match(headers.get("www-authenticate"), /^Bearer realm="toolgate"/);
  assert.equal(gateway.provider.seen(request.key).length, 0);
  assert.deepEqual(await connections(user), []);
});

await tests.test(gatewayItself, "the doctor finds the way to each of them", async () => {
  for (const { url } of [memory, issuer, brief, worker, demo, elicitation]) {
    const said = gateway.run("doctor", url);
    assert.match(said, /oauth-protected-resource/);
    assert.match(said, /oauth-authorization-server|openid-configuration/);
  }
});

await tests.test(gatewayItself, "tokens and secrets are in no log, no file in clear, no address", async () => {
  const secrets = [CONFIDENTIAL.client_secret, ...heard(memory.as, "tokens").flatMap((one) => one.secrets)];
  assert.ok(secrets.length > 20, "too few tokens were seen for this to mean anything");
  const files = readdirSync(gateway.directory, { recursive: true, withFileTypes: true }).filter((file) => file.isFile() && file.name !== "config.toml");
  assert.ok(files.some(({ name }) => /sqlite|\.db/.test(name)), files.map(({ name }) => name).join(" "));
  const places = new Map(files.map((file) => [file.name, readFileSync(join(file.parentPath, file.name), "latin1")]));
  places.set("the log", gateway.said());
  places.set("the addresses", JSON.stringify(Browser.trails));
  for (const [place, text] of places) assert.ok(!secrets.some((secret) => text.includes(secret)), `a secret is in ${place}`);
});

await tests.finish();
