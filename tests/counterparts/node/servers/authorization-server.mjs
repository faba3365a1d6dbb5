// A certified authorization server for MCP servers elsewhere: `node authorization-server.mjs RESOURCE-LIST-FILE [ttl]`.
//
// Access tokens are JWTs for the one resource that was asked for; refresh tokens rotate, and a used one that comes again
// ends the grant. It says `ISSUER url` and what it is asked for as `HEARD {…}`. Sign-in and consent are two small forms
// (`login`, then `confirm`), `abort` declines. With COUNTERPART_CA the documents of clients are fetched over TLS that
// this certificate signed.
import { createServer } from "node:http";
import { request as secureRequest } from "node:https";
import { readFileSync } from "node:fs";
import { Provider, errors } from "oidc-provider";

const options = JSON.parse(process.argv[2] ?? "{}");
const ca = process.env.COUNTERPART_CA && readFileSync(process.env.COUNTERPART_CA);
const heard = (what, details = {}) => console.log(`HEARD ${JSON.stringify({ what, ...details })}`);

const server = createServer();
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const issuer = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(issuer, {
  clients: options.clients ?? [],
  scopes: ["offline_access", "notes:read", "notes:write"],
  findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub, email: `${sub}@example.com`, email_verified: true, name: `Person ${sub}` }) }),
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
  cookies: { keys: ["for tests only"] },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  issueRefreshToken: async (_, client) => client.grantTypeAllowed("refresh_token"),
  ttl: { AccessToken: options.accessSeconds ?? 3600, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600 },
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: options.registration !== false },
    revocation: { enabled: true, allowedPolicy: () => true },
    clientIdMetadataDocument: { enabled: Boolean(ca), ack: options.ack },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => {
        if (!/^http:\/\/127\.0\.0\.1:\d+\/mcp$/.test(resource)) throw new errors.InvalidTarget();
        return { audience: resource, scope: "notes:read notes:write", accessTokenFormat: "jwt", jwt: { sign: { alg: "RS256" } }, accessTokenTTL: options.accessSeconds ?? 3600 };
      },
    },
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
  fetch: (url, init) => (ca && new URL(url).protocol === "https:" ? secureFetch(url) : fetch(url, init)),
});

/** Only documents of clients: a GET without a body, over a certificate of the test's own. */
function secureFetch(url) {
  heard("client document", { url: String(url) });
  return new Promise((resolve, reject) => {
    const onward = secureRequest(url, { ca, headers: { accept: "application/json" } }, (answer) => {
      const chunks = [];
      answer.on("data", (chunk) => chunks.push(chunk));
      answer.on("end", () => resolve(new Response(Buffer.concat(chunks), { status: answer.statusCode, headers: answer.headers })));
    });
    onward.on("error", reject).end();
  });
}

const client = (ctx) => ({ client: ctx.oidc.client?.clientId, method: ctx.oidc.client?.clientAuthMethod });
provider.on("registration_create.success", (ctx, made) => heard("register", { client: made.clientId, method: made.clientAuthMethod }));
provider.on("authorization.success", (ctx) => heard("authorize", { ...client(ctx), scope: ctx.oidc.params.scope, resource: ctx.oidc.params.resource }));
provider.on("grant.success", (ctx) => heard(ctx.oidc.params.grant_type === "refresh_token" ? "refresh" : "code", { ...client(ctx), resource: ctx.oidc.params.resource }));
provider.on("grant.error", (ctx, failure) => heard("refused", { error: failure.error, detail: failure.error_detail, grant: ctx.oidc?.params?.grant_type }));
provider.on("refresh_token.destroyed", () => heard("refresh token destroyed"));
provider.on("grant.revoked", () => heard("grant revoked"));
for (const event of ["authorization.error", "registration_create.error", "revocation.error", "server_error"]) {
  provider.on(event, (_, failure) => heard("error", { event, error: failure.error, detail: failure.error_description ?? failure.stack }));
}

const callback = provider.callback();
server.on("request", (request, response) => {
  const uid = /^\/interaction\/([\w-]+)$/.exec(request.url)?.[1];
  if (request.url === "/token/revocation" && request.method === "POST") heard("revoke");
  if (!uid) return callback(request, response);
  interact(request, response).catch((failure) => { response.statusCode = 500; response.end(String(failure.stack)); });
});

const page = (response, text) => response.setHeader("content-type", "text/html").end(`<!doctype html><title>Authorization server</title>${text}`);

async function interact(request, response) {
  const details = await provider.interactionDetails(request, response);
  if (request.method === "GET") {
    const { prompt, params } = details;
    return page(response, `<form method="post"><p>${prompt.name}: ${String(params.scope).replace(/[<&]/g, "")}</p>
      ${prompt.name === "login" ? '<input name="login">' : ""}<button name="action" value="${prompt.name}">Go on</button><button name="action" value="abort">Decline</button></form>`);
  }
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const form = new URLSearchParams(Buffer.concat(chunks).toString());
  const done = (result, merge) => provider.interactionFinished(request, response, result, { mergeWithLastSubmission: merge });
  if (form.get("action") === "abort") return done({ error: "access_denied", error_description: "<b>No</b>, said the person" }, false);
  if (form.get("action") === "login") return done({ login: { accountId: form.get("login") } }, false);
  const grant = details.grantId ? await provider.Grant.find(details.grantId) : new provider.Grant({ accountId: details.session.accountId, clientId: details.params.client_id });
  const missing = details.prompt.details;
  if (missing.missingOIDCScope) grant.addOIDCScope(missing.missingOIDCScope.join(" "));
  if (missing.missingOIDCClaims) grant.addOIDCClaims(missing.missingOIDCClaims);
  for (const [resource, scopes] of Object.entries(missing.missingResourceScopes ?? {})) grant.addResourceScope(resource, scopes.join(" "));
  return done({ consent: { grantId: await grant.save() } }, true);
}

console.log(`ISSUER ${issuer}`);
