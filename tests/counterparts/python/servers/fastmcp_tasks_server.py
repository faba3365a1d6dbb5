"""A FastMCP server whose tools are tasks (extension `io.modelcontextprotocol/tasks`) for clients that know them."""

import asyncio
from datetime import timedelta

from fastmcp import Context, FastMCP
from fastmcp.exceptions import ToolError
from fastmcp.utilities.tasks import TaskConfig
from fastmcp_tasks import TasksExtension
from listening import serve
from mcp_types import ElicitRequest, ElicitRequestFormParams, ElicitRequestURLParams, InputRequiredResult

server = FastMCP("fastmcp-tasks")
server.add_extension(TasksExtension(minimum_check_interval=timedelta(milliseconds=20)))
often = timedelta(milliseconds=200)
task = TaskConfig(mode="required", poll_interval=often)
ended = []


@server.tool(task=task)
async def count(to: int, context: Context) -> str:
    """Counts, a quarter of a second each, and says how far it is."""
    for number in range(1, to + 1):
        await context.report_progress(number, to, f"at {number}")
        await asyncio.sleep(0.25)
    return f"counted to {to}"


@server.tool(task=TaskConfig(mode="optional", poll_interval=often))
async def add(a: int, b: int) -> str:
    """Adds two numbers."""
    return f"sum={a + b}"


@server.tool(task=task)
async def refuse() -> str:
    """Always fails."""
    raise ToolError("the tool refused")


@server.tool(task=task)
async def ask(mode: str, context: Context) -> str | InputRequiredResult:
    """Asks for a form to be filled in, or for a page to be opened."""
    if context.input_responses:
        return f"the {mode} was answered with {context.input_responses['k'].action}"
    if mode == "form":
        params = ElicitRequestFormParams(message="Sure?", requested_schema={"type": "object", "properties": {}})
    else:
        params = ElicitRequestURLParams(message="Open it", url="https://sign-in.example.com/task?for=somebody")
    return InputRequiredResult(input_requests={"k": ElicitRequest(params=params)})


@server.tool(task=task)
async def endless() -> str:
    """Ends only when it is cancelled."""
    try:
        await asyncio.sleep(3600)
    finally:
        ended.append("endless")
    return "never"


@server.tool
def what_ended() -> str:
    """Which tasks were ended from outside."""
    return f"ended: {','.join(ended) or 'none'}"


serve(server.http_app(path="/mcp"), "/mcp")
