// Writes docs/reference/compatibility.md from the versions that passed, or says how it differs from them.
//
// TOOLGATE_WRITE_DOCS=1 writes it; otherwise a page that says anything else than this run is a failure.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const versions = join(process.env.TOOLGATE_TEST_DIR, "versions");
const page = join(import.meta.dirname, "../../../docs/reference/compatibility.md");
const subjects = (existsSync(versions) ? readdirSync(versions) : []).sort()
  .flatMap((file) => JSON.parse(readFileSync(join(versions, file), "utf8")));
const passed = subjects.filter((subject) => subject.passed > 0 && subject.failed === 0);

const table = (kind, heading, lead) => {
  const rows = passed.filter((subject) => subject.kind === kind)
    .sort((a, b) => a.title.localeCompare(b.title, "en"))
    .map(({ title, version, note, passed }) => `| ${title} | ${version} | ${note} | ${passed} |`);
  return `## ${heading}\n\n${lead}\n\n| what | version | what the tests do with it | passed |\n| --- | --- | --- | ---: |\n${rows.join("\n")}\n`;
};

const text = `# Compatibility

Written by \`tests/counterparts\`: every line is a version with which all of its tests passed against the real gateway.
Nothing is changed in a client but its base URL. \`cargo xtask test\` fails when this page says anything else.

${table("client", "Clients", "Through `/v1/chat/completions`, streamed and not, with MCP servers and with functions of their own.")}
${table("mcp_client", "MCP clients", "Of a kept run, at its `/{id}/mcp`.")}
${table("provider", "Providers", "Behind the gateway. Any server that speaks OpenAI's chat completions should work; these were not written by us.")}
${table("server", "MCP servers", "Called by the gateway, over the transport and protocol revision named.")}
${table("authorization", "Authorization servers", "Logged in to through the gateway's links and pages, by MCP servers that want their tokens.")}
${table("referee", "Conformance", "The specification's own client scenarios, driven through a chat completion, with a person at the links; and those of its server scenarios that need no tools of their own, against a kept run. The failures that are not ours are named, each with its reason, in `tests/counterparts/conformance-expected-failures.yml`.")}`;

if (!passed.length) {
  console.log("FAIL page: no suite has passed, so there is nothing to compare");
  process.exit(1);
}
if (process.env.TOOLGATE_WRITE_DOCS === "1") writeFileSync(page, text);
const committed = existsSync(page) ? readFileSync(page, "utf8").split("\n") : [];
const missing = text.split("\n").find((line) => !committed.includes(line));
const surplus = committed.find((line) => !text.split("\n").includes(line));
if (missing ?? surplus) {
  console.log(`FAIL page: docs/reference/compatibility.md is not what passed (${missing ? `it lacks: ${missing}` : `it says too much: ${surplus}`}); TOOLGATE_WRITE_DOCS=1 writes it`);
  process.exit(1);
}
console.log("PASS page: docs/reference/compatibility.md lists what passed");
