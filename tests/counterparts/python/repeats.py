"""What the OpenAI SDK repeats by itself, with its own defaults but for the time limit: a tool that was called is called once."""

import openai
from harness import LOGS, MODEL, script


def add_to(sdk, gateway, server):
    """`server` has the tool `charge`, which writes down each call in its log."""

    def charges(key):
        return (LOGS / "mcp-python-sdk.log").read_text().count(f"CHARGED {key}\n")

    def ask(timeout, streamed, key, *turns):
        call = {"calls": [{"tool": "charge", "arguments": {"key": key, "seconds": 2 if timeout else 0}}]}
        script_key, message = script(call, *turns)
        client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", **({"timeout": timeout} if timeout else {}))
        said = None
        try:
            answer = client.chat.completions.create(model=MODEL, messages=[message], tools=[server], stream=streamed)
            if streamed:
                said = "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
            else:
                said = answer.choices[0].message.content
        except (openai.APIError, OSError) as error:
            return error, gateway.seen(script_key)
        except Exception as error:  # what the SDK's HTTP client raises in the middle of a stream
            return error, gateway.seen(script_key)
        return said, gateway.seen(script_key)

    @sdk
    def a_tool_is_called_once_when_the_provider_fails_after_it():
        for status in (500, 503, 429, 409):
            for streamed in (False, True):
                key = f"fails-{status}-{streamed}"
                body = {"message": "broken", "type": "provider_error", "code": "its_code"}
                error, _ = ask(None, streamed, key, {"error": {"status": status, "headers": {}, "body": body}})
                assert isinstance(error, openai.APIError), error
                assert error.code == "provider_failed_after_tools", error
                [call] = error.body["tool_calls"]
                assert (call["name"], call["outcome"]) == ("charge", "ok"), call
                assert charges(key) == 1, f"{charges(key)} calls after {status}, streamed: {streamed}"

    @sdk
    def a_tool_is_called_once_when_the_client_runs_out_of_time():
        key = "late-whole"
        said, seen = ask(1.2, False, key, {"text": "It is {{tools}}."})
        assert "It is charged" in said, said
        assert charges(key) == 1 and len(seen) == 2, f"{charges(key)} calls, {len(seen)} provider calls"
        key = "late-stream"
        ask(1.2, True, key, {"text": "It is {{tools}}."})
        assert charges(key) == 1
