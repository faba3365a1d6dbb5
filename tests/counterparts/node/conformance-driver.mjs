// What the referee starts as "the client", with the address of its test server as the last argument: one chat completion
// of the running gateway, whose scripted model calls every tool the server offers.
const url = process.argv.at(-1);
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? "{}");
const values = {
  add_numbers: { a: 5, b: 3 },
  json_schema_echo: { schema: { schema_of: "json_schema_2020_12_tool" } },
  ...Object.fromEntries((context.toolCalls ?? []).map((call) => [call.name, call.arguments])),
};

const response = await fetch(`${process.env.COUNTERPART_GATEWAY}/v1/chat/completions`, {
  method: "POST", headers: { "content-type": "application/json" },
  body: JSON.stringify({
    model: process.env.COUNTERPART_MODEL,
    messages: [{ role: "user", content: JSON.stringify({ auto: true, arguments: values }) }],
    tools: [{ type: "mcp", server_label: "referee", server_url: url }],
  }),
});
console.log(response.status, await response.text());
process.exitCode = response.ok ? 0 : 1;
