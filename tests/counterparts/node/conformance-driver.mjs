// What the referee starts as "the client", with the address of its test server as the last argument: one chat completion
// of the running gateway, whose scripted model calls every tool the server offers. A scenario about signing in gets a
// gateway of its own, which has never met its authorization server, and a person who agrees to every link.
import assert from "node:assert/strict";
import { Browser } from "./person.mjs";

const url = process.argv.at(-1);
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? "{}");
const scenario = process.env.MCP_CONFORMANCE_SCENARIO ?? "";
const MOST_LOGINS = 6;
const values = {
  add_numbers: { a: 5, b: 3 },
  json_schema_echo: { schema: { schema_of: "json_schema_2020_12_tool" } },
  ...Object.fromEntries((context.toolCalls ?? []).map((call) => [call.name, call.arguments])),
};

async function complete(gateway, model) {
  const response = await fetch(`${gateway}/v1/chat/completions`, {
    method: "POST", headers: { "content-type": "application/json" },
    body: JSON.stringify({
      model, user: "person",
      messages: [{ role: "user", content: JSON.stringify({ auto: true, arguments: values }) }],
      tools: [{ type: "mcp", server_label: "referee", server_url: url }],
    }),
  });
  const text = await response.text();
  console.log(response.status, text);
  process.exitCode = response.ok ? 0 : 1;
  return response.ok ? JSON.parse(text) : {};
}

async function signingIn() {
  const harness = await import("./harness.mjs");
  const registered = context.client_id && context.issuer
    ? `[[oauth_clients]]\nissuer = "${context.issuer}"\nclient_id = "${context.client_id}"\nclient_secret = "${context.client_secret}"\nresources = ["${new URL(url).host}"]\n` : "";
  const document = '[connections]\nclient_metadata_url = "https://conformance-test.local/client-metadata.json"\n';
  const gateway = await harness.startGateway({
    name: `gateway-${process.env.MCP_CONFORMANCE_PROTOCOL_VERSION}-${scenario.replace("/", "-")}`,
    config: `${registered}${scenario === "auth/basic-cimd" ? document : ""}`,
  });
  for (let logins = 0; ; logins += 1) {
    const [login] = (await complete(gateway.url, gateway.model)).toolgate?.authorization_required ?? [];
    if (!login?.connect_url) break;
    assert.ok(logins < MOST_LOGINS, "it asks for a login again and again");
    const browser = new Browser();
    const shown = await browser.open(login.connect_url);
    const page = await browser.press(shown, "continue");
    console.log(page.status, page.url, page.said);
    if (page.status >= 400) break; // the person was told that it did not work
  }
  await gateway.stop();
  process.exit();
}

if (scenario.startsWith("auth/")) await signingIn();
else await complete(process.env.COUNTERPART_GATEWAY, process.env.COUNTERPART_MODEL);
