"""Clients of MCP, with a kept run as their server."""

import asyncio
import re

import fastmcp
import openai
from fastmcp.client.transports import StreamableHttpTransport
from harness import MODEL, script, until
from mcp import Client, MCPError
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client

TURN = {"calls": [{"tool": "add", "arguments": {"a": 2, "b": 40}}]}
REFUSAL = {"error": {"status": 400, "headers": {}, "body": {"message": "The provider refuses.", "type": "provider_error", "code": "its_code"}}}


def add_to(suite, gateway, server):
    """Adds their tests to the suite. `server` is an MCP server with the tool `add`."""

    def kept(key="any", **more):
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)
        _, message = script({"text": "Ready."})
        return f"{gateway.url}/{client.chat.completions.create(model=MODEL, messages=[message], store=True, **more).id}/mcp"

    def project_key(project):
        gateway.run("project", "create", project, "--proof", "app", "--verifier-url", "http://localhost:9/users")
        key = re.search(r"tgk_\w+", gateway.run("key", "create", "--project", project))[0]
        # A running gateway looks for keys it does not know only now and then.
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)
        until("the key being known", client.models.list)
        return key

    sdk = suite.subject("MCP Python SDK, client", ["mcp"], "2026-07-28 and, without `server/discover`, 2025-11-25: the tool, progress, failures, keys", "mcp_client")

    def through_the_sdk(mode, version):
        url = kept(tools=[server])

        async def run():
            async with Client(url, mode=mode) as client:
                assert client.protocol_version == version, client.protocol_version
                [tool] = (await client.list_tools()).tools
                assert tool.name == "ask" and tool.annotations.open_world_hint and not tool.annotations.read_only_hint, tool
                key, message = script(TURN, {"text": "It is {{tools}}."})
                told = []

                async def progress(number, total, words):
                    told.append((number, words))

                answer = await client.call_tool("ask", {"message": message["content"]}, progress_callback=progress)
                assert answer.content[0].text == "It is sum=42." and not answer.is_error, answer
                assert any("calling add" in words for _, words in told), told
                assert [number for number, _ in told] == sorted({number for number, _ in told}), told
                asked = gateway.seen(key)[0]["body"]["messages"]
                assert [m["role"] for m in asked] == ["system", "user"] and "Ready." in asked[0]["content"], asked
                quiet = await client.call_tool("ask", {"message": script({"text": "No progress."})[1]["content"]})
                assert quiet.content[0].text == "No progress.", quiet
                failed = await client.call_tool("ask", {"message": script(REFUSAL)[1]["content"]})
                assert failed.is_error and "The provider refuses." in failed.content[0].text, failed
                try:
                    await client.call_tool("ask", {"question": "what?"})
                except MCPError as error:
                    assert error.code == -32602, error
                else:
                    raise AssertionError("wrong arguments were taken")

        asyncio.run(run())

    @sdk
    def a_modern_client_asks_a_kept_run():
        through_the_sdk("auto", "2026-07-28")

    @sdk
    def a_legacy_client_asks_a_kept_run():
        through_the_sdk("legacy", "2025-11-25")

    @sdk
    def a_private_run_is_there_for_its_own_projects_key_only():
        own, other = project_key("mcp-own"), project_key("mcp-other")
        url = kept(own, extra_body={"toolgate": {"visibility": "private"}})

        async def ask(headers):
            async with create_mcp_http_client(headers=headers) as http, Client(streamable_http_client(url, http_client=http)) as client:
                return await client.call_tool("ask", {"message": script({"text": "Mine."})[1]["content"]})

        assert asyncio.run(ask({"Authorization": f"Bearer {own}"})).content[0].text == "Mine."
        for headers in ({}, {"Authorization": f"Bearer {other}"}, {"Authorization": "Bearer tgk_0123456789abcdefghjkmnpq"}):
            try:
                asyncio.run(ask(headers))
            except BaseException:
                continue
            raise AssertionError(f"it was answered with {headers}")

    fast = suite.subject("FastMCP, client", ["fastmcp"], "2026-07-28 and 2025-11-25: the tool, progress, failures, keys", "mcp_client")

    def through_fastmcp(mode):
        key = project_key(f"fastmcp-{mode}")
        url = kept(key, tools=[server], extra_body={"toolgate": {"visibility": "private"}})

        async def run():
            told = []

            async def progress(number, total, words):
                told.append(words)

            transport = StreamableHttpTransport(url, auth=key, headers={"X-Toolgate-User": "ann"})
            async with fastmcp.Client(transport, mode=mode, progress_handler=progress) as client:
                [tool] = await client.list_tools()
                assert tool.name == "ask", tool
                answer = await client.call_tool("ask", {"message": script(TURN, {"text": "It is {{tools}}."})[1]["content"]})
                assert answer.content[0].text == "It is sum=42." and any("calling add" in words for words in told), (answer, told)
                failed = await client.call_tool("ask", {"message": script(REFUSAL)[1]["content"]}, raise_on_error=False)
                assert failed.is_error and "The provider refuses." in failed.content[0].text, failed

        asyncio.run(run())

    @fast
    def a_modern_client_asks_a_kept_run_with_a_key():
        through_fastmcp("auto")

    @fast
    def a_legacy_client_asks_a_kept_run_with_a_key():
        through_fastmcp("legacy")
