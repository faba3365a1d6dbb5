// Two people with two real browsers: signing in, connecting a server, and every way to get somebody else's.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import * as harness from "./harness.mjs";
import { person, version } from "./browser-people.mjs";
import { startIssuer } from "./browser-issuer.mjs";

const tests = harness.suite("browser");
const chromium = tests.subject("client", "Chromium", execFileSync("chromium", ["--version"], { stdio: ["ignore", "pipe", "ignore"] }).toString().match(/[\d.]+/)?.[0] ?? "", "debian", `driven by playwright-core ${version}`);

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A gateway as a host runs it: people sign in at `issuer`. */
async function hosted() {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const issuer = await startIssuer({
    clients: [{ client_id: "toolgate", client_secret: "sign-in-secret-canary", redirect_uris: [`${url}/login/company/callback`], grant_types: ["authorization_code"] }],
  });
  const directory = mkdtempSync(join(harness.SCRATCH, "hosted-"));
  const file = join(directory, "config.toml");
  writeFileSync(file, `
public_url = "${url}"
[[sign_in]]
name = "company"
title = "Company account"
issuer = "${issuer.url}"
client_id = "toolgate"
client_secret = "sign-in-secret-canary"
[[api_keys]]
name = "desk"
hash = "sha256:${"0".repeat(64)}"
`);
  const run = (...args) => execFileSync(process.env.TOOLGATE_BIN, [...args, "--config", file, "--data", directory], { stdio: ["ignore", "pipe", "pipe"] }).toString();
  run("init");
  const child = harness.start("gateway-hosted", process.env.TOOLGATE_BIN, ["serve", "--config", file, "--listen", `127.0.0.1:${port}`, "--data", directory], { env: { ...process.env, RUST_LOG: "debug" } });
  await harness.until("GET /healthz", async () => (await fetch(`${url}/healthz`)).ok);
  harness.atEnd(async () => { await harness.end(child); rmSync(directory, { recursive: true, force: true }); });
  return { url, issuer, child, run, directory };
}

const gateway = await hosted();
const test = (title, run) => tests.test(chromium, title, run, 60);

async function signIn(who, account, at = gateway) {
  await who.page.goto(`${at.url}/login`);
  await who.press(/Company account/);
  await who.agree(account);
  await who.page.waitForURL(`${at.url}/account`);
}

await test("somebody signs in, sees who they are, and signs out", async () => {
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
  assert.match(anna.page.url(), /\/login/);
  assert.deepEqual(anna.complaints, []);
});

await tests.finish();
