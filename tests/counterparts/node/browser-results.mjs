// Pages of runs in a real browser: they go on by themselves, keep what the reader opened, and run nothing of strangers'.
import assert from "node:assert/strict";
import * as harness from "./harness.mjs";
import { person } from "./browser-people.mjs";

const HOSTILE = `<script>window.ran = 1; alert(1)</script><img src="https://evil.example/p.png" onerror="window.ran = 2">
<iframe src="https://evil.example/"></iframe><svg onload="window.ran = 3"></svg></details></div></main>

[click](javascript:window.ran=4) <a href="javascript:window.ran=5">x</a> ![pixel](https://evil.example/t.gif)
![data](data:image/svg+xml,<svg/onload=alert(1)>) [home](/logout) \`\`\`"><script>window.ran=6</script>\`\`\`

<style>body { display: none }</style><link rel="stylesheet" href="https://evil.example/x.css"><meta http-equiv="refresh" content="0;url=https://evil.example/">`;

/** Fills in the form of the first page and sends it; the page of the run. */
async function run(gateway, who, turns, servers = []) {
  await who.page.goto(`${gateway.url}/`);
  // Nobody opens what is open already.
  if (!(await who.page.locator("[name=servers]").isVisible())) await who.page.locator("summary", { hasText: "MCP servers" }).click();
  await who.page.fill("[name=message]", harness.script(turns).message.content);
  await who.page.fill("[name=servers]", servers.join("\n"));
  await who.page.fill("[name=other_model]", gateway.model);
  await who.press("Run");
  await who.page.waitForURL(/\/run_\w+$/);
  return who.page.url();
}

const ended = (who) => who.page.waitForFunction(() => !document.body.classList.contains("live"));
/** Every address the browser asks for, and every dialog it shows. */
function watch(who) {
  const seen = { hosts: new Set(), dialogs: 0 };
  who.context.on("request", (request) => { if (!request.url().startsWith("data:")) seen.hosts.add(new URL(request.url()).host); });
  who.page.on("dialog", (dialog) => { seen.dialogs += 1; dialog.dismiss(); });
  return seen;
}

export async function testResults(test, gateway, newServer) {
  const host = new URL(gateway.url).host;

  await test("a result goes on by itself after a login, and is there when it is opened again", async () => {
    const server = await newServer();
    const anna = await person("anna", { javaScriptEnabled: true });
    await anna.page.goto(`${gateway.url}/`);
    await anna.page.fill("[name=message]", "Say \"it's\" $(now)");
    const curl = await anna.page.locator("[data-sample=curl]").textContent();
    assert.ok(curl.includes(`"content":"Say \\"it'\\''s\\" $(now)"`), curl);
    await anna.picture("start");
    const address = await run(gateway, anna, [{ calls: [{ tool: "whoami", arguments: {} }] }, { text: "It said: {{tools}}" }], [server.url]);
    await anna.page.waitForSelector(".alert.bad");
    assert.match(await anna.text(), /needs you[\s\S]*Waiting for you to log in/);
    await anna.picture("result-login");

    const bob = await person("bob");
    await bob.page.goto(address);
    assert.match(await bob.text(), /Waiting for you to log in[\s\S]*Look again/, "without scripts: the state so far");

    const [other] = await Promise.all([anna.context.waitForEvent("page"), anna.press("Log in")]);
    await other.getByRole("button", { name: /Continue to/ }).click();
    await other.waitForURL(/\/interaction\//);
    while (/\/interaction\//.test(other.url())) {
      const asked = other.url();
      if (await other.locator("input[name=login]").count()) { await other.fill("input[name=login]", "anna"); await other.fill("input[name=password]", "any"); }
      await other.click("button[type=submit]");
      await other.waitForURL((url) => url.href !== asked);
    }
    await other.waitForURL(/\/oauth\/callback/);
    await ended(anna);
    const text = await anna.text();
    assert.match(text, /done[\s\S]*Logged in[\s\S]*whoami[\s\S]*It said: you are anna/);
    await anna.picture("result");
    await anna.page.goto("about:blank");
    await anna.page.goto(address);
    assert.equal((await anna.page.locator("#result").innerText()).replace(/\s+/g, " "), (text.match(/Logged in[\s\S]*/)[0]).replace(/\s+/g, " "));
    await bob.press("Look again");
    assert.match(await bob.text(), /It said: you are anna/);
    assert.deepEqual([...anna.complaints, ...bob.complaints], []);
    await Promise.all([anna.close(), bob.close()]);
  });

  await test("a result is stopped, shared and deleted, and what was opened stays open", async () => {
    const anna = await person("anna", { javaScriptEnabled: true });
    await anna.context.grantPermissions(["clipboard-read", "clipboard-write"], { origin: gateway.url });
    const address = await run(gateway, anna, [{ text: "Begun. " + "More text follows. ".repeat(40), hang: true }]);
    const copy = await anna.context.newPage();
    await copy.goto(address);
    await anna.page.waitForFunction(() => document.getElementById("result").innerText.includes("Begun."));
    await anna.picture("result-live");
    await anna.press("Stop");
    await ended(anna);
    assert.match(await anna.text(), /cancelled[\s\S]*Begun\.[\s\S]*The run was cancelled/);
    await copy.waitForFunction(() => !document.body.classList.contains("live"));
    assert.match(await copy.locator("#result").innerText(), /The run was cancelled/, "who only looks sees it too");
    assert.ok(await copy.locator("#facts").innerText().then((text) => text.includes("cancelled")));
    await copy.close();

    await anna.press("Copy");
    await anna.page.getByRole("button", { name: "Copied" }).waitFor();
    assert.match(await anna.page.evaluate(() => navigator.clipboard.readText()), /Begun\. More text follows/);
    await anna.page.locator("summary", { hasText: "Share" }).click();
    await anna.picture("result-share");
    await anna.page.getByRole("radio", { name: /public/ }).check();
    await anna.press("Change");
    assert.match(await anna.text(), /Changed who may read it/);
    await anna.page.goto(`${gateway.url}/runs`);
    await anna.picture("results");
    assert.match(await anna.text(), /public/);
    await anna.page.goto(address);
    await anna.page.locator("summary", { hasText: "Delete" }).click();
    await anna.page.keyboard.press("Escape");
    assert.equal(await anna.page.locator(".menu[open]").count(), 0, "it asks first, and can be left");
    await anna.page.locator("summary", { hasText: "Delete" }).click();
    await anna.press("Delete it");
    await anna.page.waitForURL(/\/runs/);
    assert.equal((await anna.page.goto(address)).status(), 404);
    await anna.picture("result-unknown");

    await run(gateway, anna, [{ calls: [{ tool: "current_time", arguments: { place: "Tokyo" } }] }, { text: "Next. ", hang: true }], [`${gateway.url}/demo/mcp`]);
    await anna.page.waitForFunction(() => document.getElementById("result").innerText.includes("Next."));
    const block = anna.page.locator("details.tool");
    await block.locator("summary").click();
    await anna.page.locator("summary", { hasText: "Use as API" }).click();
    await anna.page.keyboard.press("Escape");
    const stop = await anna.page.evaluate(() => { const form = document.querySelector("form[action$='/cancel']"); return fetch(form.action, { method: "POST", body: new URLSearchParams(new FormData(form)) }).then((answer) => answer.ok); });
    assert.ok(stop);
    await ended(anna);
    assert.ok(await block.evaluate((details) => details.open), "the page went on, and it stays open");
    assert.deepEqual(anna.complaints, []);
    await anna.close();
  });

  await test("a page goes on by itself when the gateway was killed and came back", async () => {
    const server = await newServer();
    const killed = await harness.startGateway({ name: "gateway-killed" });
    const anna = await person("anna", { javaScriptEnabled: true });
    const address = await run(killed, anna, [{ text: "First. ", calls: [{ tool: "whoami", arguments: {} }] }, { text: "It said: {{tools}}" }], [server.url]);
    await anna.page.waitForSelector(".alert.bad");
    await harness.end(killed.child, "SIGKILL");
    await killed.begin(killed.port);
    const link = await harness.until("the link again", async () => {
      await anna.page.waitForTimeout(200);
      return anna.page.locator(".alert.bad a.button").first().getAttribute("href");
    });
    const other = await person("other");
    await other.page.goto(link);
    await other.press(/Continue to/);
    await other.agree("anna");
    await other.page.waitForURL(/\/oauth\/callback/);
    await anna.page.waitForFunction(() => !document.body.classList.contains("live"), null, { timeout: 30_000 });
    assert.match(await anna.text(), /done[\s\S]*It said: you are anna/);
    assert.equal(anna.page.url(), address);
    await Promise.all([anna.close(), other.close()]);
  });

  await test("nothing that a model says runs, loads or leads astray", async () => {
    const anna = await person("anna", { javaScriptEnabled: true });
    const seen = watch(anna);
    const address = await run(gateway, anna, [{ text: HOSTILE }]);
    await ended(anna);
    for (const look of ["live", "again"]) {
      if (look === "again") await anna.page.goto(address);
      await anna.page.waitForLoadState("networkidle");
      assert.equal(await anna.page.evaluate(() => window.ran), undefined, look);
      const found = await anna.page.evaluate(() => ({
        tags: [...document.querySelectorAll("#result *, .prompt *")].map((node) => node.localName).filter((name) => /^(script|img|iframe|svg|style|link|meta|object|embed|form|input)$/.test(name)),
        handlers: [...document.querySelectorAll("*")].flatMap((node) => node.getAttributeNames().filter((name) => name.startsWith("on"))),
        links: [...document.querySelectorAll("#result a, .prompt a")].map((link) => `${link.protocol} ${link.rel}`),
      }));
      assert.deepEqual([found.tags, found.handlers], [[], []], look);
      assert.ok(found.links.every((link) => /^(https?|mailto): nofollow noopener noreferrer/.test(link)), `${found.links}`);
      assert.ok(await anna.page.locator("#result").isVisible());
      assert.match(await anna.page.locator("#result").innerText(), /image: pixel \(evil\.example\)/);
    }
    assert.deepEqual([...seen.hosts], [host]);
    assert.equal(seen.dialogs, 0);
    await anna.picture("result-hostile");
    await anna.close();
  });
}
