"""Python clients against the running gateway: the OpenAI SDK and LangChain, changed in nothing but the base URL; and clients of
MCP."""

import re

import mcp_clients
import openai
import repeats
import stored
from harness import MODEL, Gateway, Suite, script, start_python_server, until
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI

suite = Suite("sdk-python")
gateway = Gateway()
mcp = start_python_server("mcp-python-sdk", "sdk_server.py")
server = {"type": "mcp", "server_label": "srv", "server_url": mcp}
client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0)
local_time = {
    "type": "function",
    "function": {
        "name": "local_time", "description": "The caller's clock",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def add(a, b):
    return {"calls": [{"tool": "add", "arguments": {"a": a, "b": b}}]}


def fails_with(kind, **body):
    try:
        client.chat.completions.create(**body)
    except kind as error:
        return error
    raise AssertionError("it did not fail")


def provider_error(status, message, **headers):
    return {"error": {"status": status, "headers": headers, "body": {"message": message, "type": "provider_error", "code": "its_code"}}}


sdk = suite.subject("OpenAI Python SDK", ["openai"], "`create`, streams, `.stream()`, `.parse()`, raw responses, async, errors, aborts, stored completions")


@sdk
def a_plain_completion_is_what_the_provider_said():
    _, message = script({"text": "Hello."})
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=[message])
    completion = raw.parse()
    assert completion.choices[0].message.content == "Hello."
    assert completion.usage.total_tokens == 15
    assert raw.headers["x-request-id"]
    assert raw.headers["content-type"].startswith("application/json")


@sdk
def a_plain_stream_is_what_the_provider_sent():
    _, message = script({"text": "A longer hello to cut."})
    stream = client.chat.completions.create(model=MODEL, messages=[message], stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "A longer hello to cut."
    assert chunks[-1].usage.total_tokens == 15


@sdk
def create_with_an_mcp_server_answers_from_its_tool():
    _, message = script(add(2, 40), {"text": "It is {{tools}}."})
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=[message], tools=[server])
    completion = raw.parse()
    choice = completion.choices[0]
    assert choice.finish_reason == "stop" and not choice.message.tool_calls
    assert re.search(r"<summary>🔧 add \(127\.0\.0\.1:\d+\)</summary>.*It is sum=42", choice.message.content, re.DOTALL), choice.message.content
    assert completion.usage.total_tokens == 30
    assert completion.toolgate["turns"] == 2 and len(completion.toolgate["tool_calls"]) == 1
    assert raw.headers["x-run-id"].startswith("run_")


@sdk
def a_stream_over_two_turns_is_one_ordinary_completion():
    _, message = script({"text": "Let me see."} | add(2, 40), {"text": "It is {{tools}}."})
    stream = client.chat.completions.create(
        model=MODEL, messages=[message], tools=[server], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    assert len({chunk.id for chunk in chunks}) == 1
    assert [c.delta.role for c in choices if c.delta.role] == ["assistant"] and choices[0].delta.role
    assert [c.finish_reason for c in choices if c.finish_reason] == ["stop"] and choices[-1].finish_reason
    assert not any(c.delta.tool_calls for c in choices)
    assert {c.index for c in choices} == {0}
    content = "".join(c.delta.content or "" for c in choices)
    assert content.startswith("Let me see.") and "sum=42" in content and "It is sum=42" in content, content
    assert chunks[-1].usage.total_tokens == 30 and not any(c.usage for c in chunks[:-1])
    events = [chunk.toolgate["event"] for chunk in chunks if getattr(chunk, "toolgate", None)]
    assert [event for event in events if event.startswith("tool_")] == ["tool_call", "tool_result"], events


@sdk
def the_stream_helper_puts_the_answer_together():
    _, message = script(add(1, 2), {"text": "It is {{tools}}."})
    with client.chat.completions.stream(model=MODEL, messages=[message], tools=[server], stream_options={"include_usage": True}) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "content.delta")
        completion = stream.get_final_completion()
    assert completion.choices[0].message.content == deltas
    assert "It is sum=3" in deltas
    assert completion.usage.total_tokens == 30


@sdk
def the_stream_helper_hands_out_the_callers_own_call_only():
    key, message = script({"calls": add(20, 22)["calls"] + [{"tool": "local_time", "arguments": {"city": "Oslo"}}]}, {"text": "Both: {{tools}}"})
    messages = [message]
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=[server, local_time]) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        answer = stream.get_final_completion().choices[0]
    assert [event.name for event in done] == ["local_time"]
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls
    assert call.function.arguments == '{"city":"Oslo"}'
    messages.append(answer.message.model_dump(exclude_none=True, exclude={"parsed"}))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "noon"})
    completion = client.chat.completions.create(model=MODEL, messages=messages, tools=[server, local_time])
    assert "sum=42" in completion.choices[0].message.content and "noon" in completion.choices[0].message.content
    put_back = gateway.seen(key)[-1]["body"]["messages"]
    assert [m["role"] for m in put_back] == ["user", "assistant", "tool", "tool"], put_back
    assert len(put_back[1]["tool_calls"]) == 2


@sdk
def the_parse_helper_reads_structured_answers():
    from pydantic import BaseModel

    class Sum(BaseModel):
        value: int

    _, message = script({"text": '{"value": 42}'})
    completion = client.chat.completions.parse(model=MODEL, messages=[message], response_format=Sum)
    assert completion.choices[0].message.parsed == Sum(value=42)


@sdk
def the_async_client_streams():
    import asyncio

    async def run():
        _, message = script(add(3, 4), {"text": "It is {{tools}}."})
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as asynchronous:
            stream = await asynchronous.chat.completions.create(model=MODEL, messages=[message], tools=[server], stream=True)
            return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    assert asyncio.run(run()).rpartition("It is ")[2].startswith("sum=7")


@sdk
def an_abort_of_a_stream_reaches_the_provider():
    # After a tool was called, the run waits for the client's next try.
    for tools in (openai.NOT_GIVEN, [server]):
        key, message = script({"text": "Beginning…", "hang": True})
        stream = client.chat.completions.create(model=MODEL, messages=[message], tools=tools, stream=True)
        for chunk in stream:
            if chunk.choices and "Beginn" in (chunk.choices[0].delta.content or ""):
                break
        stream.close()
        until("the provider's request is closed", lambda: gateway.seen(key)[0]["closed"], 5)


@sdk
def an_unknown_model_is_not_found():
    for wrong in ("gpt-tset", "scriptde/gpt-test"):
        error = fails_with(openai.NotFoundError, model=wrong, messages=[{"role": "user", "content": "hi"}])
        assert error.code == "model_not_found" and "gpt-test" in error.message, error.message


@sdk
def bad_requests_name_the_parameter():
    assert fails_with(openai.BadRequestError, model=MODEL, messages=[], extra_body={"messages": None}).param == "messages"
    assert fails_with(openai.BadRequestError, model="", messages=[], extra_body={"model": 7}).param == "model"
    tools = [server, server | {"server_url": f"{mcp}?2"}]
    assert "server_label" in str(fails_with(openai.BadRequestError, model=MODEL, messages=[script({"text": "x"})[1]], tools=tools).message)
    tools = [server | {"require_approval": "always"}]
    assert "require_approval" in fails_with(openai.BadRequestError, model=MODEL, messages=[script({"text": "x"})[1]], tools=tools).message


@sdk
def the_providers_errors_keep_status_headers_and_words():
    for tools in (openai.NOT_GIVEN, [server]):
        for status, kind in ((401, openai.AuthenticationError), (403, openai.PermissionDeniedError), (422, openai.UnprocessableEntityError)):
            error = fails_with(kind, model=MODEL, messages=[script(provider_error(status, "No, thank you"))[1]], tools=tools)
            assert "No, thank you" in error.message and error.code == "its_code", error
        error = fails_with(openai.RateLimitError, model=MODEL, messages=[script(provider_error(429, "Slow down", **{"retry-after": "17"}))[1]], tools=tools)
        assert error.response.headers["retry-after"] == "17"


@sdk
def a_provider_cut_in_the_middle_of_a_stream_is_an_error():
    for tools in (openai.NOT_GIVEN, [server]):
        _, message = script({"text": "Half of it", "cut": True})
        stream = client.chat.completions.create(model=MODEL, messages=[message], tools=tools, stream=True)
        finished = None
        try:
            for chunk in stream:
                finished = finished or (chunk.choices[0].finish_reason if chunk.choices else None)
        except Exception:
            assert finished is None
        else:
            raise AssertionError("the stream ended as if it were whole")


@sdk
def n_above_one_is_refused_with_mcp_tools():
    error = fails_with(openai.BadRequestError, model=MODEL, messages=[script({"text": "x"})[1]], tools=[server], n=2)
    assert error.param == "n"


@sdk
def options_travel_in_the_body_and_in_headers():
    for more in ({"extra_body": {"toolgate": {"output": "text"}}}, {"extra_headers": {"X-Toolgate-Output": "text"}}):
        _, message = script(add(1, 2), {"text": "It is {{tools}}."})
        completion = client.chat.completions.create(model=MODEL, messages=[message], tools=[server], **more)
        content = completion.choices[0].message.content.strip()
        assert content.startswith("It is sum=3") and "details" not in content, content


@sdk
def models_can_be_listed():
    assert MODEL in [model.id for model in client.models.list()]


@sdk
def a_providers_host_as_the_base_url_takes_the_callers_key_there():
    base = f"{gateway.url}/{gateway.provider.removeprefix('http://')}"
    with openai.OpenAI(base_url=base, api_key="provider-key-canary", max_retries=0) as direct:
        _, message = script(add(2, 40), {"text": "It is {{tools}}."})
        completion = direct.chat.completions.create(model="gpt-test", messages=[message], tools=[server])
        assert "It is sum=42" in completion.choices[0].message.content
        assert [model.id for model in direct.models.list()] == ["gpt-test"]
        assert direct.embeddings.create(model="any", input="x", encoding_format="float").data[0].embedding == [0.25, -0.5]


stored.add_to(sdk, gateway, server)
repeats.add_to(sdk, gateway, server)
mcp_clients.add_to(suite, gateway, server)


langchain = suite.subject("LangChain (langchain-openai)", ["langchain-openai", "langchain-core"], "`invoke`, `stream`, `ainvoke`, `bind_tools` with MCP servers and own functions; needs `use_responses_api=False`")
chat = ChatOpenAI(model=MODEL, base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, stream_usage=True, use_responses_api=False)


def human(*turns):
    return HumanMessage(script(*turns)[1]["content"])


@langchain
def invoke_answers_from_an_mcp_tool():
    answer = chat.bind_tools([server]).invoke([human(add(2, 40), {"text": "It is {{tools}}."})])
    assert "It is sum=42" in answer.text and not answer.tool_calls
    assert answer.usage_metadata["total_tokens"] == 30


@langchain
def stream_answers_from_an_mcp_tool():
    answer = None
    for chunk in chat.bind_tools([server]).stream([human(add(2, 40), {"text": "It is {{tools}}."})]):
        answer = chunk if answer is None else answer + chunk
    assert "It is sum=42" in answer.text and not answer.tool_calls, answer
    assert answer.usage_metadata["total_tokens"] == 30


@langchain
def ainvoke_answers_from_an_mcp_tool():
    import asyncio

    answer = asyncio.run(chat.bind_tools([server]).ainvoke([human(add(5, 6), {"text": "It is {{tools}}."})]))
    assert "It is sum=11" in answer.text


@langchain
def own_functions_work_beside_mcp_tools():
    bound = chat.bind_tools([server, local_time])
    messages = [human(add(20, 22), {"calls": [{"tool": "local_time", "arguments": {"city": "Tokyo"}}]}, {"text": "Both: {{tools}}"})]
    asked = bound.invoke(messages)
    [call] = asked.tool_calls
    assert call["name"] == "local_time" and call["args"] == {"city": "Tokyo"}
    answer = bound.invoke([*messages, asked, ToolMessage("noon", tool_call_id=call["id"])])
    assert "noon" in answer.text and "sum=42" in answer.text, answer.text


@langchain
def own_functions_work_beside_mcp_tools_in_one_streamed_turn():
    bound = chat.bind_tools([server, local_time])
    messages = [human({"calls": add(20, 22)["calls"] + [{"tool": "local_time", "arguments": {"city": "Oslo"}}]}, {"text": "Both: {{tools}}"})]
    asked = None
    for chunk in bound.stream(messages):
        asked = chunk if asked is None else asked + chunk
    [call] = asked.tool_calls
    answer = bound.invoke([*messages, asked, ToolMessage("noon", tool_call_id=call["id"])])
    assert "noon" in answer.text and "sum=42" in answer.text, answer.text


@langchain
def errors_keep_their_class():
    try:
        chat.invoke([human(provider_error(429, "Slow down", **{"retry-after": "3"}))])
    except openai.RateLimitError as error:
        assert error.response.headers["retry-after"] == "3"
    else:
        raise AssertionError("it did not fail")


@sdk
def the_gateways_log_holds_no_provider_key_and_no_panic():
    text = gateway.log.read_text()
    assert "provider-key-canary" not in text and "panicked" not in text


suite.finish(gateway)
