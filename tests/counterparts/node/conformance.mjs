// The specification's own referee: its client scenarios, each served by its test server and driven through a chat
// completion of the running gateway (`conformance-driver.mjs`), those about signing in with a person at the links. And its
// server scenarios that need no tools, prompts and resources of their own, against a kept run's `/mcp`.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import * as harness from "./harness.mjs";

const REVISIONS = ["2026-07-28", "2025-11-25"];
const referee = join(harness.PACKAGES, "@modelcontextprotocol/conformance/dist/index.js");
const expected = join(harness.SOURCES, "conformance-expected-failures.yml");
/** What a server can show that has one tool, and no resources, prompts and logs. */
const OF_SERVERS = {
  "2026-07-28": ["server-stateless", "tools-list", "caching", "http-header-validation", "server-sse-multiple-streams", "dns-rebinding-protection"],
  "2025-11-25": ["server-initialize", "ping", "tools-list", "dns-rebinding-protection"],
};
const tests = harness.suite("conformance");
const gateway = await harness.startGateway({
  // A test server may ask for what nobody here can give, and wait: then the call has to end before the referee gives up.
  name: "gateway-conformance", config: "[mcp]\ncall_seconds = 8\n",
});

async function referees(name, args, env = {}) {
  const child = harness.start(name, process.execPath, ["--require", join(import.meta.dirname, "loopback.cjs"), referee, ...args], { env: { ...process.env, ...env } });
  return { code: await child.ended, text: child.text };
}

/** The client scenarios a revision has, scored or not, without extensions. */
async function scenarios(revision) {
  const { text } = await referees(`conformance-list-${revision}`, ["list", "--requirements", revision]);
  const required = text.split("Client scenarios")[1]?.split("Run and reported")[0] ?? "";
  const later = text.split("added-after-release")[1]?.split(/pending|$/)[0] ?? "";
  return [...required.matchAll(/^ +- (\S+)$/gm), ...later.matchAll(/^ +- (\S+) \[client\]$/gm)]
    .map(([, scenario]) => scenario);
}

/** The checks of one scenario as the referee wrote them down. */
function checksIn(directory) {
  return readdirSync(directory, { recursive: true }).filter((file) => file.endsWith("checks.json"))
    .flatMap((file) => JSON.parse(readFileSync(join(directory, file), "utf8")));
}

/** Runs one scenario; fails with what its checks say. */
async function judged(name, args, env) {
  const output = mkdtempSync(join(harness.SCRATCH, "conformance-"));
  const { code, text } = await referees(name, [...args, "--expected-failures", expected, "--output-dir", output, "--timeout", "25000"], env);
  const checks = checksIn(output).filter((check) => check.status !== "INFO");
  rmSync(output, { recursive: true });
  if (code !== 0) {
    const bad = checks.filter((check) => check.status === "FAILURE").map((check) => `${check.id} (${check.errorMessage ?? check.name})`);
    throw new Error(bad.join("; ") || text.slice(-700));
  }
  if (!checks.length) throw new Error("no check was made");
}

const jobs = [];
const backwards = tests.subject("referee", "MCP conformance suite, signing in as of 2025-03-26", harness.npmVersion("@modelcontextprotocol/conformance"), "", "");
const OLD = ["auth/2025-03-26-oauth-metadata-backcompat", "auth/2025-03-26-oauth-endpoint-fallback"];
backwards.note = OLD.map((name) => `\`${name}\``).join(", ");
for (const scenario of OLD) jobs.push({ subject: backwards, revision: "2025-03-26", scenario });
for (const revision of REVISIONS) {
  const subject = tests.subject("referee", `MCP conformance suite, client scenarios of ${revision}`, harness.npmVersion("@modelcontextprotocol/conformance"), "", "");
  const names = await scenarios(revision);
  subject.note = names.map((name) => `\`${name}\``).join(", ");
  if (names.length < 5) await tests.test(subject, `${revision}: the referee lists its scenarios`, () => { throw new Error(`only ${names.join(", ")}`); });
  for (const scenario of names) jobs.push({ subject, revision, scenario });
}

const driver = `${process.execPath} ${join(import.meta.dirname, "conformance-driver.mjs")}`;
await Promise.all([0, 1, 2].map(async () => {
  for (let job = jobs.shift(); job; job = jobs.shift()) {
    const { subject, revision, scenario } = job;
    await tests.test(subject, `${revision}: ${scenario}`, async () => {
      await judged(`conformance-${revision}-${scenario.replace("/", "-")}`,
        ["client", "--command", driver, "--scenario", scenario, "--spec-version", revision],
        { COUNTERPART_GATEWAY: gateway.url, COUNTERPART_MODEL: gateway.model });
    }, 60);
  }
}));

const prompt = await harness.completed(gateway, { messages: [harness.script([{ text: "Ready." }]).message], store: true });
for (const [revision, names] of Object.entries(OF_SERVERS)) {
  const subject = tests.subject("referee", `MCP conformance suite, server scenarios of ${revision}`, harness.npmVersion("@modelcontextprotocol/conformance"), "", "");
  subject.note = names.map((name) => `\`${name}\``).join(", ");
  for (const scenario of names) {
    await tests.test(subject, `${revision}: a kept run as server, ${scenario}`, () => judged(`conformance-server-${revision}-${scenario}`,
      ["server", "--url", `${gateway.url}/${prompt.value.id}/mcp`, "--scenario", scenario, "--spec-version", revision]), 60);
  }
}
await tests.finish();
