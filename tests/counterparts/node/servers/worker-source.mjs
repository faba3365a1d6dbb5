// Runs inside workerd (see workers.mjs): the provider under test, an MCP endpoint of one answer per request, and a
// consent page that agrees with whoever presses the button. `write_note` needs a scope that the first login lacks.
import { OAuthProvider, insufficientScope } from "./oauth-provider.mjs";

const heard = (what, details = {}) => console.log(`HEARD ${JSON.stringify({ what, ...details })}`);
const tools = [
  { name: "whoami", description: "Says whose token this is", inputSchema: { type: "object" } },
  { name: "write_note", description: "Writes a note", inputSchema: { type: "object", properties: { text: { type: "string" } }, required: ["text"] } },
];
const needs = { write_note: ["notes:read", "notes:write"] };

const mcp = {
  async fetch(request, env, ctx) {
    if (request.method !== "POST") return new Response(null, { status: 405, headers: { allow: "POST" } });
    const { id, method, params } = await request.json();
    const answer = (result) => Response.json({ jsonrpc: "2.0", id, result });
    if (id === undefined) return new Response(null, { status: 202 });
    if (method === "initialize") return answer({ protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "workers", version: "1.0.0" } });
    if (method === "tools/list") return answer({ tools });
    if (method === "ping") return answer({});
    if (method !== "tools/call") return Response.json({ jsonrpc: "2.0", id, error: { code: -32601, message: "Method not found" } }, { status: 404 });
    const wanted = needs[params.name] ?? ["notes:read"];
    if (!wanted.every((scope) => ctx.auth.scope.includes(scope))) return insufficientScope(ctx.auth, wanted);
    const text = params.name === "whoami" ? `you are ${ctx.props.name} with ${[...ctx.auth.scope].sort().join(" ")}` : `wrote ${params.arguments.text}`;
    return answer({ content: [{ type: "text", text }] });
  },
};

const pages = {
  async fetch(request, env) {
    const url = new URL(request.url);
    if (url.pathname !== "/authorize") return new Response("nothing here", { status: 404 });
    const asked = await env.OAUTH_PROVIDER.parseAuthRequest(request.method === "POST" ? new Request(request.url) : request);
    if (request.method === "GET") {
      return new Response(`<!doctype html><title>Worker</title><form method="post"><p>${asked.scope.join(" ")}</p><button name="action" value="agree">Agree</button></form>`, { headers: { "content-type": "text/html" } });
    }
    heard("authorize", { scope: asked.scope, resource: asked.resource, client: asked.clientId });
    const { redirectTo } = await env.OAUTH_PROVIDER.completeAuthorization({ request: asked, userId: "wanda", metadata: {}, scope: asked.scope, props: { name: "wanda" } });
    return Response.redirect(redirectTo, 302);
  },
};

let provider;
const built = (env) => (provider ??= new OAuthProvider({
  apiRoute: "/mcp", apiHandler: mcp, defaultHandler: pages,
  authorizeEndpoint: "/authorize", tokenEndpoint: "/oauth/token", clientRegistrationEndpoint: "/oauth/register",
  scopesSupported: ["notes:read", "notes:write", "offline_access"],
  resourceMetadata: { resource: `${env.ORIGIN}/mcp`, authorization_servers: [env.ORIGIN] },
  requiredScopes: ["notes:read"], accessTokenTTL: env.SECONDS,
  tokenExchangeCallback: ({ grantType }) => { heard(grantType === "refresh_token" ? "refresh" : "code"); },
  clientRegistrationCallback: ({ clientMetadata }) => { heard("register", { method: clientMetadata?.tokenEndpointAuthMethod ?? clientMetadata?.token_endpoint_auth_method }); },
  onError: ({ code, description }) => { heard("refused", { error: code, detail: description }); },
}));

export default {
  async fetch(request, env, ctx) {
    if (new URL(request.url).pathname === "/oauth/token" && request.method === "POST") {
      const form = new URLSearchParams(await request.clone().text());
      if (form.get("token") && !form.get("grant_type")) heard("revoke", { hint: form.get("token_type_hint") });
    }
    return built(env).fetch(request, env, ctx);
  },
};
