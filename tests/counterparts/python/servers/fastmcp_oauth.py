"""A FastMCP server that wants a login: its own authorization server (`memory`), or another's JWTs (`remote`).

What its authorization server is asked for is printed as `HEARD {…}`. `POST /control/withdraw` makes every access token
invalid at once, `POST /control/forget` every refresh token too, `POST /control/amnesia` forgets the clients as well.
With `--seconds` access tokens live that long; this provider also forgets the refresh token of an expired access token
that it is shown.
"""

import argparse
import json

from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider
from fastmcp.server.auth.auth import ClientRegistrationOptions, RevocationOptions
from fastmcp.server.auth.providers import in_memory
from fastmcp.server.auth.providers.jwt import JWTVerifier
from fastmcp.server.dependencies import get_access_token
from listening import bind, serve
from starlette.responses import Response

parser = argparse.ArgumentParser()
parser.add_argument("kind", choices=["memory", "remote"])
parser.add_argument("--issuer")
parser.add_argument("--seconds", type=int, default=3600)
parser.add_argument("--scopes", nargs="*", default=["notes:read"])
options = parser.parse_args()
listener, origin = bind()
in_memory.DEFAULT_ACCESS_TOKEN_EXPIRY_SECONDS = options.seconds


def heard(what, **details):
    print("HEARD " + json.dumps({"what": what} | details), flush=True)


def told(tokens):
    """Says which tokens were given away, so that the test can look for them where they must not be."""
    heard("tokens", secrets=[tokens.access_token, tokens.refresh_token])
    return tokens


class Observed(in_memory.InMemoryOAuthProvider):
    """Says what it is asked for; changes nothing."""

    async def register_client(self, client_info):
        heard("register", redirect_uris=[str(uri) for uri in client_info.redirect_uris or []], method=client_info.token_endpoint_auth_method)
        await super().register_client(client_info)

    async def authorize(self, client, params):
        heard("authorize", scopes=params.scopes, resource=params.resource)
        return await super().authorize(client, params)

    async def exchange_authorization_code(self, client, authorization_code):
        heard("code")
        return told(await super().exchange_authorization_code(client, authorization_code))

    async def exchange_refresh_token(self, client, refresh_token, scopes):
        heard("refresh", scopes=scopes)
        return told(await super().exchange_refresh_token(client, refresh_token, scopes))

    async def revoke_token(self, token):
        heard("revoke", kind=type(token).__name__)
        await super().revoke_token(token)


if options.kind == "memory":
    auth = Observed(
        base_url=origin,
        required_scopes=options.scopes,
        client_registration_options=ClientRegistrationOptions(enabled=True, valid_scopes=[*options.scopes, "notes:write"]),
        revocation_options=RevocationOptions(enabled=True),
    )
else:
    auth = RemoteAuthProvider(
        token_verifier=JWTVerifier(
            jwks_uri=f"{options.issuer}/jwks", issuer=options.issuer, audience=f"{origin}/mcp", required_scopes=options.scopes
        ),
        authorization_servers=[options.issuer],
        base_url=origin,
    )
server = FastMCP("protected", auth=auth)


@server.tool
def whoami() -> str:
    """Says whose token this is."""
    token = get_access_token()
    subject = token.claims.get("sub") or token.client_id
    return f"you are {subject} with {' '.join(sorted(token.scopes))}"


@server.custom_route("/control/{action}", methods=["POST"])
async def control(request):
    action = request.path_params["action"]
    auth.access_tokens.clear()
    if action in ("forget", "amnesia"):
        auth.refresh_tokens.clear()
    if action == "amnesia":
        auth.clients.clear()
    return Response(status_code=204)


serve(server.http_app(path="/mcp"), "/mcp", listener)
