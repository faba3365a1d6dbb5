"""An MCP server built on FastMCP: open, behind a static token (`--token`), or with many tools (`--tools N`)."""

import argparse
import base64

from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.server.auth.providers.jwt import StaticTokenVerifier
from fastmcp.utilities.types import Image
from listening import serve

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="

parser = argparse.ArgumentParser()
parser.add_argument("--token")
parser.add_argument("--tools", type=int, default=0)
parser.add_argument("--transport", default="http")
options = parser.parse_args()

verifier = StaticTokenVerifier({options.token: {"client_id": "test", "scopes": ["read"]}}) if options.token else None
server = FastMCP("fastmcp", auth=verifier)


@server.tool(annotations={"readOnlyHint": True})
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return f"sum={a + b}"


@server.tool
def weather(city: str) -> dict[str, str | int]:
    """The weather as data."""
    return {"city": city, "celsius": 21}


@server.tool
def picture() -> Image:
    """A picture."""
    return Image(data=base64.b64decode(PIXEL), format="png")


@server.tool
def refuse() -> str:
    """Always fails."""
    raise ToolError("the tool refused")


@server.tool
async def count(to: int, context: Context) -> str:
    """Counts and says how far it is."""
    for number in range(1, to + 1):
        await context.report_progress(number, to, f"at {number}")
    return f"counted to {to}"


@server.tool
def large(bytes: int) -> str:
    """Much text."""
    return "0123456789" * (bytes // 10)


for number in range(options.tools):
    server.tool(lambda text="": text, name=f"tool_{number:04}", description=f"Tool number {number}")

path = "/sse" if options.transport == "sse" else "/mcp"
serve(server.http_app(transport=options.transport, path=path), path)
