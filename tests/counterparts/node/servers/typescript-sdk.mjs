// An MCP server built on the TypeScript SDK 2.x, speaking 2026-07-28 and the older revisions at one address.
import { createServer } from "node:http";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import { toNodeHandler } from "@modelcontextprotocol/node";
import { z } from "zod";

const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
const readOnly = { readOnlyHint: true };

function build() {
  const server = new McpServer({ name: "typescript-sdk", version: "1.0.0" });
  server.registerTool("add", { description: "Adds two numbers", inputSchema: z.object({ a: z.number(), b: z.number() }), annotations: readOnly },
    async ({ a, b }) => ({ content: [{ type: "text", text: `sum=${a + b}` }] }));
  server.registerTool("charge", { description: "Takes its time, and writes down that it was called", inputSchema: z.object({ key: z.string(), seconds: z.number() }) },
    async ({ key, seconds }) => {
      console.log(`CHARGED ${key}.`);
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      return { content: [{ type: "text", text: "charged" }] };
    });
  server.registerTool("arguments", { description: "Says which arguments came", inputSchema: z.looseObject({}) },
    async (given) => ({ content: [{ type: "text", text: JSON.stringify(given) }] }));
  server.registerTool("weather", {
    description: "The weather as data", inputSchema: z.object({ city: z.string() }), outputSchema: z.object({ city: z.string(), celsius: z.number() }), annotations: readOnly,
  }, async ({ city }) => ({ content: [], structuredContent: { city, celsius: 21 } }));
  server.registerTool("picture", { description: "A picture", inputSchema: z.object({}) },
    async () => ({ content: [{ type: "text", text: "one pixel" }, { type: "image", data: PIXEL, mimeType: "image/png" }] }));
  server.registerTool("sound", { description: "A sound", inputSchema: z.object({}) },
    async () => ({ content: [{ type: "audio", data: "UklGRgAAAABXQVZF", mimeType: "audio/wav" }] }));
  server.registerTool("link", { description: "A link to a document", inputSchema: z.object({}) },
    async () => ({ content: [{ type: "resource_link", uri: "https://example.com/report.pdf", name: "Report", mimeType: "application/pdf" }] }));
  server.registerTool("embedded", { description: "A document", inputSchema: z.object({}) },
    async () => ({ content: [{ type: "resource", resource: { uri: "memo://one", mimeType: "text/plain", text: "the memo's text" } }] }));
  server.registerTool("refuse", { description: "Always fails", inputSchema: z.object({}) },
    async () => ({ content: [{ type: "text", text: "the tool refused" }], isError: true }));
  server.registerTool("throws", { description: "Has a bug", inputSchema: z.object({}) },
    async () => { throw new Error("a bug in the tool"); });
  server.registerTool("large", { description: "Much text", inputSchema: z.object({ bytes: z.number() }) },
    async ({ bytes }) => ({ content: [{ type: "text", text: "0123456789".repeat(bytes / 10) }] }));
  server.registerTool("hostile", { description: "Text that wants out of its block", inputSchema: z.object({}) },
    async () => ({ content: [{ type: "text", text: "```\n</details>\n<script>alert(1)</script>\n````\n\u001b[31mred\u200b\n[x](javascript:1)" }] }));
  return server;
}

createServer(toNodeHandler(createMcpHandler(build))).listen(0, "127.0.0.1");
