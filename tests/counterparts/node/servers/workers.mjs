// `@cloudflare/workers-oauth-provider` in workerd, as many public MCP servers run it: authorization server and MCP
// server in one Worker. Prints `LISTENING url`, and `HEARD {…}` for what its endpoints are asked.
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Miniflare } from "miniflare";

const library = join(process.env.TOOLGATE_TEST_DIR, "node/node_modules/@cloudflare/workers-oauth-provider/dist/oauth-provider.js");
const seconds = Number(process.argv[2] ?? 3600);

// The Worker has to know its origin, so the port is found first.
const probe = createServer();
await new Promise((resolve) => probe.listen(0, "127.0.0.1", resolve));
const { port } = probe.address();
await new Promise((resolve) => probe.close(resolve));
const origin = `http://127.0.0.1:${port}`;

const worker = new Miniflare({
  host: "127.0.0.1", port, telemetry: { enabled: false }, cf: false,
  compatibilityDate: "2026-07-01", compatibilityFlags: ["nodejs_compat", "global_fetch_strictly_public"],
  modulesRoot: "/",
  modules: [
    { type: "ESModule", path: "/worker.mjs", contents: readFileSync(join(import.meta.dirname, "worker-source.mjs"), "utf8") },
    { type: "ESModule", path: "/oauth-provider.mjs", contents: readFileSync(library, "utf8") },
  ],
  bindings: { ORIGIN: origin, SECONDS: seconds },
  kvNamespaces: ["OAUTH_KV"],
  handleStructuredLogs: ({ message }) => console.log(message),
});
await worker.ready;
console.log(`LISTENING ${origin}/mcp`);
process.on("SIGTERM", () => worker.dispose().then(() => process.exit(0)));
