// Two people with two real browsers: signing in, connecting a server, and every way to get somebody else's.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import * as harness from "./harness.mjs";
import { person, version } from "./browser-people.mjs";
import { startIssuer, startProtectedServer } from "./browser-issuer.mjs";
import { MODEL, PROVIDER_KEY, startProvider } from "./scripted-provider.mjs";

const tests = harness.suite("browser");
// Not on the page of what is compatible: its version is whatever the distribution has.
const chromium = tests.subject("browser", "Chromium", execFileSync("chromium", ["--version"], { stdio: ["ignore", "pipe", "ignore"] }).toString().match(/[\d.]+/)?.[0] ?? "", "debian", `driven by playwright-core ${version}`);
const test = (title, run) => tests.test(chromium, title, run, 60);

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A gateway with three kinds of callers: the machine's own person, and projects `desk` and `app` with their proofs. */
async function startGateway() {
  const [port, appPort, provider] = [await freePort(), await freePort(), await startProvider()];
  const url = `http://127.0.0.1:${port}`;
  const signIn = await startIssuer({
    clients: [{ client_id: "toolgate", client_secret: "sign-in-secret-canary", redirect_uris: [`${url}/login/company/callback`], grant_types: ["authorization_code"] }],
  });
  const directory = mkdtempSync(join(harness.SCRATCH, "browser-gateway-"));
  const file = join(directory, "config.toml");
  writeFileSync(file, `
[[providers]]
name = "scripted"
base_url = "${provider.url}"
api_key = "${PROVIDER_KEY}"
models = ["${MODEL}"]

[[sign_in]]
name = "company"
title = "Company account"
issuer = "${signIn.url}"
client_id = "toolgate"
client_secret = "sign-in-secret-canary"
`);
  const environment = Object.fromEntries(Object.entries(process.env).filter(([key]) => !/_API_KEY$|^TOOLGATE_/.test(key)));
  const run = (...args) => execFileSync(process.env.TOOLGATE_BIN, [...args, "--config", file, "--data", directory], { env: environment, stdio: ["ignore", "pipe", "pipe"] }).toString();
  run("init");
  run("project", "create", "desk", "--proof", "gateway");
  run("project", "create", "app", "--proof", "app", "--verifier-url", `http://localhost:${appPort}/toolgate`);
  const key = (project) => run("key", "create", "--project", project).match(/tgk_\w+/)[0];
  const keys = { desk: key("desk"), app: key("app") };
  const child = harness.start("gateway-browser", process.env.TOOLGATE_BIN, ["serve", "--config", file, "--listen", `127.0.0.1:${port}`, "--data", directory], { env: { ...environment, RUST_LOG: "debug" } });
  await harness.until("GET /healthz", async () => (await fetch(`${url}/healthz`)).ok);
  harness.atEnd(async () => { await harness.end(child); await provider.stop(); rmSync(directory, { recursive: true, force: true }); });
  const ask = (sql, ...values) => {
    const database = new DatabaseSync(join(directory, "toolgate.db"), { readOnly: true });
    try { return database.prepare(sql).all(...values); } finally { database.close(); }
  };
  return {
    url, signIn, keys, appPort, model: `scripted/${MODEL}`,
    /** The connections of a server that are stored, and what the audit log says about it. */
    connections: (server) => ask("SELECT * FROM connections WHERE resource = ? AND status <> 'revoked'", server.url),
    audit: (server) => ask("SELECT event FROM audit WHERE resource = ? ORDER BY at", server.url).map((row) => row.event),
    secrets: () => ask("SELECT * FROM connection_secrets"),
  };
}

const gateway = await startGateway();
const access = await startIssuer({ registration: true });
const other = await startIssuer({ registration: true });
const newServer = () => startProtectedServer(access);

/** Asks for a completion that uses `servers`, as an application does. */
async function complete(key, user, servers) {
  const turns = [{ tool_calls: [{ name: "server0__whoami", arguments: {} }] }, { content: "done" }];
  const { message } = harness.script(turns);
  return harness.completed(gateway, {
    messages: [message], ...(user ? { user } : {}),
    tools: servers.map((server, number) => ({ type: "mcp", server_label: `server${number}`, server_url: server.url })),
  }, key ? { authorization: `Bearer ${key}` } : {});
}

async function linksOf(key, user, ...servers) {
  const answer = await complete(key, user, servers);
  const missing = answer.toolgate?.authorization_required;
  assert.ok(missing?.length === servers.length, `no links: ${JSON.stringify(answer).slice(0, 600)}`);
  return { links: missing.map((entry) => entry.connect_url), all: answer.toolgate.batch?.connect_all_url ?? answer.toolgate.connect_all_url ?? answer.toolgate.batch, answer };
}

async function signIn(who, account) {
  await who.page.goto(`${gateway.url}/login`);
  await who.press(/Company account/);
  await who.agree(account);
  await who.page.waitForURL(`${gateway.url}/account`);
}

/** Catches the way back from the authorization server instead of going it; gives its address. */
async function catchCallback(who) {
  // Playwright's own routes do not see redirects.
  const session = await who.context.newCDPSession(who.page);
  let caught;
  session.on("Fetch.requestPaused", ({ requestId, request }) => {
    caught = request.url;
    const responseHeaders = [{ name: "content-type", value: "text/html" }];
    session.send("Fetch.fulfillRequest", { requestId, responseCode: 200, responseHeaders, body: Buffer.from("<main>caught</main>").toString("base64") }).catch(() => {});
  });
  await session.send("Fetch.enable", { patterns: [{ urlPattern: "*/oauth/callback*" }] });
  return async () => {
    await harness.until("the way back", () => caught);
    await who.page.waitForLoadState();
    await session.send("Fetch.disable");
    await session.detach();
    return caught;
  };
}

function nothingStored(server, ...events) {
  assert.deepEqual(gateway.connections(server), []);
  const audit = gateway.audit(server);
  for (const event of events) assert.ok(audit.some((row) => event.test(row)), `no ${event} in the audit log: ${audit}`);
}

await test("somebody signs in, sees who they are, and signs out everywhere", async () => {
  const anna = await person("anna");
  await anna.page.goto(`${gateway.url}/login`);
  await anna.picture("sign-in");
  await signIn(anna, "anna");
  assert.match(await anna.text(), /company:anna/);
  await anna.picture("account");
  await anna.press("Sign out everywhere");
  await anna.picture("signed-out");
  assert.match(await anna.heading(), /signed out/);
  await anna.page.goto(`${gateway.url}/account`);
  assert.deepEqual(anna.complaints, []);
  await anna.close();
});

await test("on one's own machine a link needs a click and the server's login", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(undefined, undefined, server);
  const anna = await person("anna");
  await anna.page.goto(link);
  assert.match(await anna.heading(), new RegExp(`Connect ${server.host}`));
  await anna.picture("connect-local");
  await anna.press(/Continue to/);
  await anna.agree("anna");
  await anna.page.waitForURL(/\/oauth\/callback/);
  assert.match(await anna.heading(), /You have authorised/);
  await anna.picture("connected");
  const answer = await complete(undefined, undefined, [server]);
  assert.ok(!answer.toolgate?.authorization_required?.length, JSON.stringify(answer.toolgate));
  assert.equal(server.seen.at(-1).account, "anna");
  assert.equal(gateway.connections(server).length, 1);
  await anna.page.goto(link);
  await anna.picture("already-connected");
  await anna.page.goto(`${gateway.url}/connections`);
  assert.match(await anna.text(), new RegExp(server.host));
  await anna.picture("connections");
  await anna.press("Disconnect");
  await anna.picture("disconnected");
  assert.deepEqual(gateway.connections(server), []);
  assert.deepEqual(anna.complaints, []);
  await anna.close();
});

await test("the right person connects after signing in at the gateway", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(gateway.keys.desk, "company:anna", server);
  const anna = await person("anna");
  await anna.page.goto(link);
  await anna.picture("connect-sign-in");
  await anna.press("Sign in to go on");
  await anna.press(/Company account/);
  await anna.agree("anna");
  await anna.page.waitForURL(link);
  await anna.picture("connect");
  await anna.press(/Continue to/);
  await anna.agree("anna");
  await anna.page.waitForURL(/\/oauth\/callback/);
  assert.match(await anna.heading(), /You have authorised/);
  assert.equal(gateway.connections(server).length, 1);
  assert.deepEqual(anna.complaints, []);
  await anna.close();
});

await test("a forwarded link is refused to who is not its user", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(gateway.keys.desk, "company:mallory", server);
  const victim = await person("victim");
  await victim.page.goto(link);
  await victim.press("Sign in to go on");
  await victim.press(/Company account/);
  await victim.agree("victim");
  await victim.page.waitForURL(link);
  assert.match(await victim.heading(), /not for you/);
  await victim.picture("wrong-person");
  // Also without looking at the page first: the form itself, as the page would have sent it.
  const account = await victim.page.goto(`${gateway.url}/account`).then(() => victim.page.content());
  const csrf = account.match(/name="csrf" value="(\w+)"/)[1];
  await victim.page.evaluate(([action, token]) => {
    document.body.insertAdjacentHTML("beforeend", `<form method="post" id="own"><input name="csrf" value="${token}"><input name="action" value="continue"></form>`);
    document.getElementById("own").action = action;
    document.getElementById("own").submit();
  }, [new URL(link).pathname, csrf]);
  await victim.page.waitForURL(link);
  assert.match(await victim.heading(), /not for you/);
  nothingStored(server, /mismatch/);
  await victim.close();
});

await test("who is signed in as somebody else changes the account and connects", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(gateway.keys.desk, "company:anna", server);
  const anna = await person("anna");
  await signIn(anna, "bob");
  await anna.page.goto(link);
  assert.match(await anna.heading(), /not for you/);
  await anna.press("Sign in with another account");
  await anna.press(/Company account/);
  await anna.agree("anna");
  await anna.page.waitForURL(link);
  assert.match(await anna.heading(), /Connect/);
  assert.deepEqual(gateway.connections(server), []);
  await anna.close();
});

await test("a forwarded address of the authorization server ends without a login", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(undefined, undefined, server);
  const [mallory, victim] = [await person("mallory"), await person("victim")];
  await mallory.page.goto(link);
  let forwarded;
  await mallory.page.route(/\/auth\?/, (route) => { forwarded = route.request().url(); return route.abort(); });
  await mallory.press(/Continue to/);
  await harness.until("the authorization server's address", () => forwarded);
  await victim.page.goto(forwarded);
  await victim.agree("victim");
  await victim.page.waitForURL(/\/oauth\/callback/);
  assert.match(await victim.heading(), /start again/);
  await victim.picture("no-cookie");
  nothingStored(server);
  assert.ok(gateway.audit(server).some((event) => /cookie|browser|state/.test(event)), gateway.audit(server).join());
  await Promise.all([mallory.close(), victim.close()]);
});

await test("a code of somebody else's cannot be put into a way back", async () => {
  const [server, own] = [await newServer(), await newServer()];
  const { links: [theirs] } = await linksOf(undefined, undefined, server);
  const { links: [mine] } = await linksOf(undefined, undefined, own);
  const [mallory, victim] = [await person("mallory"), await person("victim")];
  for (const [who, link, account] of [[mallory, theirs, "mallory"], [victim, mine, "victim"]]) {
    await who.page.goto(link);
    who.caught = await catchCallback(who);
    await who.press(/Continue to/);
    await who.agree(account);
  }
  const [malloryBack, victimBack] = [new URL(await mallory.caught()), new URL(await victim.caught())];
  await victim.page.goto(malloryBack.href);
  assert.doesNotMatch(await victim.heading(), /authorised/, "mallory's code and state");
  const mixed = new URL(victimBack);
  mixed.searchParams.set("code", malloryBack.searchParams.get("code"));
  await victim.page.goto(mixed.href);
  assert.doesNotMatch(await victim.heading(), /authorised/, "mallory's code under the victim's state");
  await victim.picture("not-connected");
  nothingStored(server);
  nothingStored(own, /./);
  await Promise.all([mallory.close(), victim.close()]);
});

await test("looking at a link, by whom and how often ever, uses nothing up", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(undefined, undefined, server);
  for (const method of ["GET", "HEAD", "GET"]) assert.equal((await fetch(link, { method, headers: { "user-agent": "Slackbot-LinkExpanding 1.0" } })).status, 200);
  const anna = await person("anna");
  await anna.page.goto(`${gateway.url}/account`);
  await anna.page.evaluate((address) => { const hint = document.createElement("link"); hint.rel = "prefetch"; hint.href = address; document.head.append(hint); }, link);
  await anna.page.goto(link);
  await anna.page.reload();
  await anna.press(/Continue to/);
  await anna.agree("anna");
  await anna.page.waitForURL(/\/oauth\/callback/);
  assert.match(await anna.heading(), /You have authorised/);
  await anna.close();
});

await test("a way back without the cookie, or a second time, connects nothing", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(undefined, undefined, server);
  const anna = await person("anna");
  await anna.page.goto(link);
  const caught = await catchCallback(anna);
  await anna.press(/Continue to/);
  await anna.agree("anna");
  const back = await caught();
  const jar = await anna.context.cookies();
  await anna.context.clearCookies();
  await anna.page.goto(back);
  assert.match(await anna.heading(), /start again/);
  nothingStored(server);
  await anna.context.addCookies(jar);
  const fresh = await linksOf(undefined, undefined, server);
  await anna.page.goto(fresh.links[0]);
  const again = await catchCallback(anna);
  await anna.press(/Continue to/);
  await anna.agree("anna");
  const second = await again();
  await anna.page.goto(second);
  assert.match(await anna.heading(), /You have authorised/);
  await anna.page.goto(second);
  assert.doesNotMatch(await anna.heading(), /You have authorised/, "replayed");
  assert.equal(gateway.connections(server).length, 1);
  await anna.close();
});

await test("an answer that names another issuer is not taken", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(undefined, undefined, server);
  const anna = await person("anna");
  await anna.page.goto(link);
  const caught = await catchCallback(anna);
  await anna.press(/Continue to/);
  await anna.agree("anna");
  const back = new URL(await caught());
  back.searchParams.set("iss", other.url);
  await anna.page.goto(back.href);
  assert.doesNotMatch(await anna.heading(), /authorised/);
  await anna.picture("other-issuer");
  nothingStored(server, /./);
  await anna.close();
});

await test("who declines, here or at the server, connects nothing", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(undefined, undefined, server);
  const anna = await person("anna");
  await anna.page.goto(link);
  await anna.press("Decline");
  assert.match(await anna.heading(), /was not connected/);
  await anna.picture("declined");
  const next = await linksOf(undefined, undefined, server);
  await anna.page.goto(next.links[0]);
  await anna.press(/Continue to/);
  await anna.page.waitForURL(/\/interaction\//);
  await anna.page.getByText(/cancel/i).first().click();
  await anna.page.waitForURL(/\/oauth\/callback/);
  assert.match(await anna.heading(), /was not connected/);
  await anna.picture("declined-there");
  nothingStored(server, /declined|denied/);
  await anna.close();
});

await test("several servers are connected one after the other with one link", async () => {
  const servers = [await newServer(), await newServer()];
  const { all } = await linksOf(undefined, undefined, ...servers);
  assert.ok(all, "there is one link for all");
  const anna = await person("anna");
  await anna.page.goto(all);
  await anna.picture("batch");
  for (const server of servers) {
    await anna.press(new RegExp(`with ${server.host}`));
    await anna.press(/Continue to/);
    await anna.agree("anna");
    await anna.page.waitForURL((url) => url.pathname === "/oauth/callback" || url.href === all);
    if (!anna.page.url().startsWith(all)) await anna.page.waitForURL(all);
  }
  assert.match(await anna.heading(), /Nothing is left/);
  await anna.picture("batch-done");
  for (const server of servers) assert.equal(gateway.connections(server).length, 1);
  assert.deepEqual(anna.complaints, []);
  await anna.close();
});

await test("an application proves its own users, and no others", async () => {
  const server = await newServer();
  const example = join(harness.SOURCES, "../../examples/connect-from-your-app/app.py");
  const child = harness.start("example-app", harness.PYTHON, ["-u", example, "127.0.0.1", String(gateway.appPort)], {
    env: { ...process.env, TOOLGATE_URL: gateway.url, TOOLGATE_KEY: gateway.keys.app, MODEL: gateway.model, MCP_SERVER: server.url },
  });
  harness.atEnd(() => harness.end(child, "SIGKILL"));
  const home = `http://localhost:${gateway.appPort}/`;
  await harness.until("the example", async () => (await fetch(home)).ok);
  const enter = async (who, name) => {
    await who.page.goto(`${home}login`);
    await who.page.fill("input[name=name]", name);
    await who.press("Sign in");
    await who.page.waitForURL(home);
  };
  const { links: [link] } = await linksOf(gateway.keys.app, "mallory", server);
  const victim = await person("victim");
  await enter(victim, "victim");
  await victim.page.goto(link);
  await victim.picture("connect-app");
  await victim.press("Continue");
  await victim.page.waitForURL(/localhost:\d+\/toolgate/);
  assert.match(await victim.text(), /made for somebody else/);
  nothingStored(server, /mismatch/);
  const anna = await person("anna");
  await enter(anna, "anna");
  await anna.press("Connect your files");
  await anna.press("Continue");
  await anna.agree("anna");
  await anna.page.waitForURL(/\/oauth\/callback/);
  assert.match(await anna.heading(), /You have authorised/);
  assert.equal(gateway.connections(server).length, 1);
  await Promise.all([victim.close(), anna.close()]);
});

await test("an unknown link says what to do", async () => {
  const anna = await person("anna");
  const response = await anna.page.goto(`${gateway.url}/connect/flw_0000000000000000000000000000`);
  assert.equal(response.status(), 404);
  await anna.picture("unknown-link");
  await anna.close();
});

await tests.finish();
