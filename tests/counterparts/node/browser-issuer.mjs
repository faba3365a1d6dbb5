// An authorization server nobody here wrote, as two things: where people sign in to the gateway, and what guards an
// MCP server. Runs in the suite's own process, so that the suite can see what it handed out.
import { createServer } from "node:http";
import Provider from "oidc-provider";
import { atEnd } from "./harness.mjs";

async function listen() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  atEnd(() => { server.close(); server.closeAllConnections(); });
  return { server, port: server.address().port };
}

/** Any name signs in with any password. `localhost`, so that to browsers it is another site than the gateway. */
export async function startIssuer({ clients = [], registration = false } = {}) {
  const { server, port } = await listen();
  const url = `http://localhost:${port}`;
  // Of which client and for which resource tokens were asked for with codes, and whether it gave any.
  const exchanges = [];
  // Its notices about being a test's.
  const { info, warn } = console;
  console.info = console.warn = () => {};
  const provider = new Provider(url, {
    clients,
    cookies: { keys: ["only a test"] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, email: `${id}@example.com`, email_verified: true }) }),
    claims: { openid: ["sub"], email: ["email", "email_verified"] },
    conformIdTokenClaims: false,
    scopes: ["openid", "email", "profile", "offline_access", "files:read"],
    pkce: { required: () => true },
    features: {
      devInteractions: { enabled: true },
      registration: { enabled: registration },
      revocation: { enabled: true, allowedPolicy: () => true },
      resourceIndicators: {
        enabled: registration,
        defaultResource: () => undefined,
        getResourceServerInfo: (_, resource) => ({ scope: "openid email files:read offline_access", audience: resource, accessTokenTTL: 3600, accessTokenFormat: "opaque" }),
        useGrantedResource: () => true,
      },
    },
    issueRefreshToken: () => true,
    ttl: { AccessToken: 3600, AuthorizationCode: 60, Grant: 3600, IdToken: 3600, Interaction: 600, RefreshToken: 3600, Session: 3600 },
  });
  Object.assign(console, { info, warn });
  const note = (granted) => ({ oidc: { params } }) => { if (params?.grant_type === "authorization_code") exchanges.push({ resource: params.resource, granted }); };
  provider.on("grant.success", note(true));
  provider.on("grant.error", note(false));
  provider.on("server_error", (_, failure) => console.error(failure));
  server.on("request", provider.callback());
  return { url, port, provider, exchanges: (server) => exchanges.filter(({ resource }) => resource === server.url) };
}

/** An MCP server with one tool, `whoami`, behind tokens of `issuer` that have `scope`. */
export async function startProtectedServer(issuer, scope = "files:read") {
  const { server, port } = await listen();
  const url = `http://127.0.0.1:${port}/mcp`;
  const state = { issuer, url, host: `127.0.0.1:${port}`, seen: [] };
  server.on("request", async (request, response) => {
    const answer = (status, body, headers = {}) => {
      response.writeHead(status, { "content-type": "application/json", ...headers });
      response.end(body === undefined ? undefined : JSON.stringify(body));
    };
    if (request.url.startsWith("/.well-known/oauth-protected-resource")) {
      return answer(200, { resource: url, resource_name: "Files", authorization_servers: [state.issuer.url], scopes_supported: scope.split(" ") });
    }
    if (request.url !== "/mcp") return answer(404, {});
    const bearer = request.headers.authorization?.match(/^Bearer (.+)$/)?.[1];
    const token = bearer && await state.issuer.provider.AccessToken.find(bearer);
    if (!token) {
      return answer(401, {}, { "www-authenticate": `Bearer resource_metadata="http://127.0.0.1:${port}/.well-known/oauth-protected-resource/mcp", scope="${scope}"` });
    }
    state.seen.push({ account: token.accountId, token: bearer });
    if (request.method !== "POST") return answer(405, {});
    let text = "";
    for await (const chunk of request) text += chunk;
    const message = JSON.parse(text);
    const result = {
      initialize: () => ({ protocolVersion: "2025-06-18", capabilities: { tools: {} }, serverInfo: { name: "files", version: "1" } }),
      "tools/list": () => ({ tools: [{ name: "whoami", description: "Says who you are", inputSchema: { type: "object", properties: {} } }] }),
      "tools/call": () => ({ content: [{ type: "text", text: `you are ${token.accountId}` }] }),
    }[message.method];
    if (message.id === undefined) return answer(202);
    if (!result) return answer(200, { jsonrpc: "2.0", id: message.id, error: { code: -32601, message: "no such method" } });
    answer(200, { jsonrpc: "2.0", id: message.id, result: result() });
  });
  return state;
}
