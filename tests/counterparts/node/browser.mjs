// Two people with two real browsers: signing in, connecting a server, and every way to get somebody else's.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import * as harness from "./harness.mjs";
import { startGateway } from "./browser-gateway.mjs";
import { person, version } from "./browser-people.mjs";
import { testResults } from "./browser-results.mjs";
import { startIssuer, startProtectedServer } from "./browser-issuer.mjs";

const tests = harness.suite("browser");
// Not on the page of what is compatible: its version is whatever the distribution has.
const chromium = tests.subject("browser", "Chromium", execFileSync("chromium", ["--version"], { stdio: ["ignore", "pipe", "ignore"] }).toString().match(/[\d.]+/)?.[0] ?? "", "debian", `driven by playwright-core ${version}`);
const test = (title, run) => tests.test(chromium, title, run, 60);

const gateway = await startGateway();
const access = await startIssuer({ registration: true });
const other = await startIssuer({ registration: true });
const newServer = (issuer = access, scope) => startProtectedServer(issuer, scope);

/** Asks for a completion that uses `servers`, as an application does. */
async function complete(key, user, servers) {
  const turns = [{ calls: [{ tool: "whoami", arguments: {} }] }, { text: "It said: {{tools}}" }];
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
  return { links: missing.map((entry) => entry.connect_url), all: answer.toolgate.connect_all_url };
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

/** There is no connection, and the audit log says exactly this about the server since the first link to it. */
function nothingStored(server, ...events) {
  assert.deepEqual(gateway.connections(server), []);
  assert.deepEqual(gateway.audit(server), ["flow.created", ...events]);
}

/** Opens a link, agrees to everything, and is caught on the way back: its address. */
async function almostConnect(who, link, account) {
  await who.page.goto(link);
  const caught = await catchCallback(who);
  await who.press(/Continue to/);
  await who.agree(account);
  return new URL(await caught());
}

/** Opens a link and goes all the way. */
async function connect(who, link, account) {
  await who.page.goto(link);
  await who.press(/Continue to/);
  await who.agree(account);
  await who.page.waitForURL(/\/oauth\/callback/);
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
  assert.match(answer.content, /It said: .*you are anna/s);
  assert.equal(gateway.connections(server).length, 1);
  await anna.page.goto(link);
  await anna.picture("already-connected");
  await anna.page.goto(`${gateway.url}/connections`);
  assert.match(await anna.text(), new RegExp(server.host));
  await anna.picture("connections");
  await anna.press("Disconnect");
  await anna.picture("disconnected");
  assert.match(await anna.text(), new RegExp(`${server.host} has revoked the access`));
  assert.deepEqual(gateway.connections(server), []);
  assert.deepEqual(gateway.audit(server).filter((event) => event !== "connection.used").slice(0, 3), ["flow.created", "connection.created", "connection.revoked: user"]);
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
  nothingStored(server, "flow.user_mismatch");
  assert.deepEqual(victim.complaints, []);
  await victim.close();
});

await test("who is signed in as somebody else changes the account and connects", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(gateway.keys.desk, "company:anna", server);
  // Where oidc-provider changes from one account to another, its own page needs a script.
  const anna = await person("anna", { javaScriptEnabled: true });
  await signIn(anna, "bob");
  await anna.page.goto(link);
  assert.match(await anna.heading(), /not for you/);
  nothingStored(server, "flow.user_mismatch");
  await anna.press("Sign in with another account");
  await anna.press(/Company account/);
  await anna.agree("anna");
  await anna.page.waitForURL(link);
  await anna.press(/Continue to/);
  await anna.agree("anna");
  await anna.page.waitForURL(/\/oauth\/callback/);
  assert.match(await anna.heading(), /You have authorised/);
  assert.deepEqual(gateway.connections(server).map(({ project, user }) => [project, user]), [["project:desk", "company:anna"]]);
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
  nothingStored(server, "flow.wrong_browser");
  assert.deepEqual(access.exchanges(server), [], "the code is not spent");
  await Promise.all([mallory.close(), victim.close()]);
});

await test("a code of somebody else's cannot be put into a way back", async () => {
  const [server, own] = [await newServer(), await newServer()];
  const { links: [theirs] } = await linksOf(undefined, undefined, server);
  const { links: [mine] } = await linksOf(undefined, undefined, own);
  const [mallory, victim] = [await person("mallory"), await person("victim")];
  const [malloryBack, victimBack] = [await almostConnect(mallory, theirs, "mallory"), await almostConnect(victim, mine, "victim")];
  await victim.page.goto(malloryBack.href);
  assert.match(await victim.heading(), /start again/, "mallory's code and state");
  nothingStored(server, "flow.wrong_browser");
  const mixed = new URL(victimBack);
  mixed.searchParams.set("code", malloryBack.searchParams.get("code"));
  await victim.page.goto(mixed.href);
  assert.match(await victim.heading(), /cannot be connected now/, "mallory's code under the victim's state");
  await victim.picture("not-connected");
  nothingStored(server, "flow.wrong_browser");
  nothingStored(own, "flow.failed: exchange");
  // Neither is of use afterwards: the state is used up, and with it the code that was not.
  await victim.page.goto(victimBack.href);
  assert.match(await victim.heading(), /works only once/);
  nothingStored(own, "flow.failed: exchange");
  const forged = new URL(victimBack);
  forged.searchParams.set("state", "0".repeat(64));
  const before = gateway.audit().length;
  await victim.page.goto(forged.href);
  assert.match(await victim.heading(), /works only once/);
  assert.deepEqual(gateway.audit().slice(before), ["flow.unknown_state"]);
  nothingStored(own, "flow.failed: exchange");
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
  nothingStored(server);
  assert.deepEqual(access.exchanges(server), []);
  // A browser that guesses where it goes next does not use up the way back either.
  const back = await almostConnect(anna, link, "anna");
  const looks = [{ method: "HEAD" }, { method: "GET", headers: { "sec-purpose": "prefetch" } }, { method: "GET", headers: { "sec-purpose": "prefetch;prerender" } }];
  for (const look of looks) assert.equal((await anna.context.request.fetch(back.href, look)).status(), 425, JSON.stringify(look));
  nothingStored(server);
  await anna.page.goto(back.href);
  assert.match(await anna.heading(), /You have authorised/);
  assert.deepEqual(gateway.audit(server), ["flow.created", "connection.created"]);
  await anna.close();
});

await test("a way back without the cookie, or a second time, connects nothing", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(undefined, undefined, server);
  const anna = await person("anna");
  const back = await almostConnect(anna, link, "anna");
  const jar = await anna.context.cookies();
  await anna.context.clearCookies();
  await anna.page.goto(back.href);
  assert.match(await anna.heading(), /start again/);
  nothingStored(server, "flow.wrong_browser");
  assert.deepEqual(access.exchanges(server), [], "the code is not spent");
  await anna.context.clearCookies();
  await anna.context.addCookies(jar);
  await anna.page.goto(back.href);
  assert.match(await anna.heading(), /You have authorised/, "the cookie was all that was missing");
  const [stored] = gateway.connections(server);
  const known = ["flow.created", "flow.wrong_browser", "connection.created"];
  assert.deepEqual(gateway.audit(server), known);
  const before = gateway.audit().length;
  await anna.page.goto(back.href);
  assert.match(await anna.heading(), /works only once/, "replayed");
  await anna.picture("replayed");
  assert.deepEqual([gateway.connections(server), gateway.audit(server)], [[stored], known]);
  assert.deepEqual(gateway.audit().slice(before), ["flow.unknown_state"]);
  assert.equal(access.exchanges(server).length, 1, "no second exchange");
  await anna.close();
});

await test("an answer that names another issuer is not taken", async () => {
  const server = await newServer();
  const { links: [link] } = await linksOf(undefined, undefined, server);
  const anna = await person("anna");
  const back = await almostConnect(anna, link, "anna");
  back.searchParams.set("iss", other.url);
  await anna.page.goto(back.href);
  assert.match(await anna.heading(), /cannot be connected now/);
  await anna.picture("other-issuer");
  nothingStored(server, "flow.issuer_mismatch: iss");
  // It can be begun anew, and an answer without `iss` is none of an issuer that always names itself.
  await anna.press("Start again");
  const second = await almostConnect(anna, link, "anna");
  second.searchParams.delete("iss");
  await anna.page.goto(second.href);
  nothingStored(server, "flow.issuer_mismatch: iss", "flow.issuer_mismatch: iss");
  assert.deepEqual(access.exchanges(server), [], "no code is spent");
  await anna.close();
});

await test("what one issuer gave does not come back as another's", async () => {
  for (const [one, two] of [[access, other], [other, access]]) {
    const [server, mixed] = [await newServer(one), await newServer(two)];
    const { links: [link] } = await linksOf(undefined, undefined, server);
    const { links: [target] } = await linksOf(undefined, undefined, mixed);
    const anna = await person("anna");
    const [from, to] = [await almostConnect(anna, link, "anna"), await almostConnect(anna, target, "anna")];
    // The code of one with the state of the other, as the one that gave it says who it is: it goes to nobody.
    const honest = new URL(to);
    for (const name of ["code", "iss"]) honest.searchParams.set(name, from.searchParams.get(name));
    await anna.page.goto(honest.href);
    assert.match(await anna.heading(), /cannot be connected now/);
    nothingStored(mixed, "flow.issuer_mismatch: iss");
    assert.deepEqual([one.exchanges(server), two.exchanges(mixed)], [[], []]);
    // And with the other's name on it: the other does not know the code, and ours is bound to a verifier of its own.
    const again = await almostConnect(anna, target, "anna");
    again.searchParams.set("code", from.searchParams.get("code"));
    await anna.page.goto(again.href);
    assert.match(await anna.heading(), /cannot be connected now/);
    nothingStored(mixed, "flow.issuer_mismatch: iss", "flow.failed: exchange");
    nothingStored(server);
    assert.deepEqual(two.exchanges(mixed).map(({ granted }) => granted), [false]);
    // The state of the one with the other's code, too.
    const reverse = new URL(from);
    for (const name of ["code", "iss"]) reverse.searchParams.set(name, to.searchParams.get(name));
    await anna.page.goto(reverse.href);
    nothingStored(server, "flow.issuer_mismatch: iss");
    assert.deepEqual(one.exchanges(server), []);
    await anna.close();
  }
});

await test("another account than before is connected only when the person says so", async () => {
  const server = await newServer(access, "openid email files:read");
  const { links: [link] } = await linksOf(undefined, undefined, server);
  const anna = await person("anna");
  await connect(anna, link, "anna");
  assert.match(await anna.text(), /Connected as anna@example.com/);
  const accounts = () => gateway.connections(server).map(({ account }) => account);
  assert.deepEqual(accounts(), ["anna@example.com"]);
  const token = server.seen.length;
  const asBob = async () => {
    await anna.page.goto(`${gateway.url}/connections`);
    const row = anna.page.locator("article", { hasText: server.host });
    await row.getByText("Change what is allowed").click();
    await row.getByLabel(/Scopes/).fill("openid email files:read offline_access");
    await row.getByRole("button", { name: `Ask ${server.host}` }).click();
    await anna.page.waitForURL(/\/connect\//);
    const again = anna.page.url();
    await anna.picture("reauthorise");
    // The authorization server forgets who was signed in there.
    await anna.context.clearCookies({ domain: "localhost" });
    await anna.press(/Continue to/);
    await anna.agree("bob");
    await anna.page.waitForURL(/\/oauth\/callback/);
    assert.match(await anna.heading(), /Is this the right account/);
    assert.match(await anna.text(), /as anna@example.com.*as bob@example.com/);
    return again;
  };
  const again = await asBob();
  await anna.picture("other-account");
  const first = ["flow.created", "connection.created", "flow.created", "flow.other_account"];
  const history = () => gateway.audit(server).filter((event) => !/^connection.used|^token\./.test(event));
  assert.deepEqual([accounts(), history()], [["anna@example.com"], first], "nothing is changed before the answer");
  const answer = await complete(undefined, undefined, [server]);
  assert.match(answer.content, /you are anna/);
  assert.ok(server.seen.slice(token).every(({ account }) => account === "anna"));
  // Somebody else who has the link cannot answer for them.
  const mallory = await person("mallory");
  assert.doesNotMatch(await (await mallory.context.request.get(again)).text(), /anna@|bob@/);
  const { links: [own] } = await linksOf(undefined, undefined, await newServer());
  const shown = await (await mallory.context.request.get(own)).text();
  const csrf = shown.match(/name="csrf" value="(\w+)"/)[1];
  const kept = await mallory.context.request.post(`${again}/account`, { form: { csrf, action: "keep" } });
  assert.equal(kept.status(), 400);
  assert.deepEqual(accounts(), ["anna@example.com"]);
  await mallory.close();
  // The question is behind the link as well.
  await anna.page.goto(again);
  await anna.press("Do not use it");
  assert.match(await anna.heading(), /Nothing was changed/);
  await anna.picture("other-account-declined");
  assert.deepEqual([accounts(), history()], [["anna@example.com"], [...first, "flow.declined: here"]]);
  await asBob();
  await anna.press("Use this account");
  assert.match(await anna.heading(), /You have authorised/);
  assert.deepEqual(accounts(), ["bob@example.com"]);
  assert.deepEqual(history().slice(-4, -2), ["flow.created", "flow.other_account"]);
  assert.deepEqual(history().slice(-2).sort(), ["connection.created", "connection.revoked: replaced"]);
  assert.match((await complete(undefined, undefined, [server])).content, /you are bob/);
  assert.deepEqual(anna.complaints, []);
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
  nothingStored(server, "flow.declined: here");
  const next = await linksOf(undefined, undefined, server);
  await anna.page.goto(next.links[0]);
  await anna.press(/Continue to/);
  await anna.page.waitForURL(/\/interaction\//);
  await anna.page.getByText(/cancel/i).first().click();
  await anna.page.waitForURL(/\/oauth\/callback/);
  assert.match(await anna.heading(), /was not connected/);
  await anna.picture("declined-there");
  nothingStored(server, "flow.declined: here", "flow.created", "flow.declined: at the authorization server");
  assert.deepEqual(access.exchanges(server), []);
  await anna.close();
});

await test("several servers are connected one after the other with one link", async () => {
  const servers = [await newServer(), await newServer()];
  const { all } = await linksOf(undefined, undefined, ...servers);
  assert.ok(all, "there is one link for all");
  const anna = await person("anna");
  await anna.page.goto(all);
  await anna.picture("batch");
  for (const [number, server] of servers.entries()) {
    await anna.press(new RegExp(`with ${server.host}`));
    await anna.press(/Continue to/);
    await anna.agree("anna");
    await anna.page.waitForURL((url) => url.pathname === "/oauth/callback");
    assert.match(await anna.heading(), /You have authorised/);
    assert.deepEqual(servers.map((one) => gateway.connections(one).length), servers.map((_, index) => Number(index <= number)));
    // While something is left it goes on by itself.
    if (number + 1 < servers.length) await anna.page.waitForURL(all);
  }
  assert.match(await anna.text(), /You can close this page/);
  await anna.page.goto(all);
  assert.match(await anna.heading(), /All 2 servers are connected/);
  await anna.picture("batch-done");
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
  // The application's own page asks for a link of the victim's.
  nothingStored(server, "flow.created", "flow.user_mismatch");
  // Mallory has a link of the victim's, and sends the victim the way to the application, which confirms the victim.
  const prize = await newServer();
  const { links: [stolen] } = await linksOf(gateway.keys.app, "victim", prize);
  const mallory = await person("mallory");
  await mallory.page.goto(stolen);
  await mallory.press("Continue");
  await mallory.page.waitForURL(/localhost:\d+\/toolgate\?flow_ref=/);
  await victim.page.goto(mallory.page.url());
  await victim.page.waitForURL(/\/connect\/.*proof=/);
  assert.match(await victim.heading(), /start again/);
  await victim.picture("proof-in-another-browser");
  const proof = victim.page.url();
  for (const address of [stolen, proof]) {
    await mallory.page.goto(address);
    await mallory.press("Continue");
    await mallory.page.waitForURL(/localhost:\d+\/toolgate\?flow_ref=/);
  }
  assert.deepEqual(access.exchanges(prize), []);
  nothingStored(prize, "flow.wrong_browser: proof");
  await mallory.page.goto(stolen);
  await mallory.press("Decline");
  assert.match(await mallory.text(), /link stays for its owner/);
  await mallory.picture("declined-by-nobody");
  nothingStored(prize, "flow.wrong_browser: proof");
  await mallory.close();
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

await testResults(test, gateway, newServer);

await tests.finish();
