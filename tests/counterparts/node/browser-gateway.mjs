// The gateway of the browser suite, and what its operator sees.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as harness from "./harness.mjs";
import { startIssuer } from "./browser-issuer.mjs";
import { MODEL, PROVIDER_KEY, startProvider } from "./scripted-provider.mjs";

/** A gateway with three kinds of callers: the machine's own person, and projects `desk` and `app` with their proofs. */
export async function startGateway() {
  const [port, appPort, provider] = [await harness.freePort(), await harness.freePort(), await startProvider()];
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
  return {
    url, signIn, keys, appPort, model: `scripted/${MODEL}`,
    /** The connections to a server that there are, as the operator sees them. */
    connections: (server) => JSON.parse(run("connections", "list", "--json")).filter(({ resource, status }) => resource === server.url && status !== "revoked"),
    /** What the audit log says about a server, oldest first; without one, about ways back that belong to no link. */
    audit: (server) => JSON.parse(run("audit", "--json", "--limit", "1000")).reverse()
      .filter(({ resource, flow, event }) => (server ? resource === server.url : !flow && event.startsWith("flow.")))
      .map(({ event, detail }) => (detail ? `${event}: ${detail}` : event)),
  };
}
