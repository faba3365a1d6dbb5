"""An MCP server built on the MCP Python SDK."""

import asyncio
import base64
import sys

from listening import serve
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

server = MCPServer("python-sdk")


@server.tool()
def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return f"sum={a + b}"


@server.tool()
def weather(city: str) -> dict[str, str | int]:
    """The weather as data."""
    return {"city": city, "celsius": 21}


@server.tool()
def picture() -> Image:
    """A picture."""
    data = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
    return Image(data=base64.b64decode(data), format="png")


@server.tool()
async def charge(key: str, seconds: float) -> str:
    """Takes its time, and writes down that it was called."""
    print(f"CHARGED {key}", flush=True)
    await asyncio.sleep(seconds)
    return "charged"


@server.tool()
def refuse() -> str:
    """Always fails."""
    raise ToolError("the tool refused")


@server.tool()
async def count(to: int, context: Context) -> str:
    """Counts and says how far it is."""
    for number in range(1, to + 1):
        await context.report_progress(number, to, f"at {number}")
    return f"counted to {to}"


if "sse" in sys.argv:
    serve(server.sse_app(), "/sse")
else:
    serve(server.streamable_http_app(json_response="json" in sys.argv))
