"""OpenAI's stored completions, as its SDK calls them."""

import asyncio
import re

import openai
from harness import MODEL, script

TURN = {"calls": [{"tool": "add", "arguments": {"a": 2, "b": 40}}]}


def add_to(sdk, gateway, server):
    """Adds the tests to the SDK's. `server` is an MCP server with the tool `add`."""
    client = openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0)

    def store(metadata, *turns, by=client, **more):
        key, message = script(*(turns or [{"text": "Kept."}]))
        return key, by.chat.completions.create(model=MODEL, messages=[message], store=True, metadata=metadata, **more)

    def is_gone(call):
        try:
            call()
        except openai.NotFoundError as error:
            assert error.code == "run_not_found", error.code
            return True
        return False

    @sdk
    def a_stored_completion_is_retrieved_as_it_was_answered():
        _, message = script({"text": "Keep this."})
        raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=[message], store=True, metadata={"case": "whole"})
        answer = raw.parse()
        assert raw.headers["x-result-url"] == f"{gateway.url}/{answer.id}"
        kept = client.chat.completions.retrieve(answer.id)
        for field in ("id", "object", "created", "model", "usage"):
            assert getattr(kept, field) == getattr(answer, field), field
        assert kept.choices[0].message.content == "Keep this." == answer.choices[0].message.content
        assert kept.choices[0].finish_reason == "stop"
        assert kept.metadata == {"case": "whole"}

    @sdk
    def what_is_to_be_stored_is_no_business_of_the_provider():
        key, _ = store({"case": "unseen"})
        sent = gateway.seen(key)[0]["body"]
        assert "store" not in sent and "metadata" not in sent, sent

    @sdk
    def a_stored_stream_with_a_tool_is_retrieved_with_all_that_was_streamed():
        _, stream = store({"case": "streamed"}, TURN, {"text": "It is {{tools}}."}, tools=[server], stream=True)
        chunks = list(stream)
        content = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        [run] = {chunk.id for chunk in chunks}
        kept = client.chat.completions.retrieve(run)
        assert kept.choices[0].message.content == content and "It is sum=42" in content, kept
        assert kept.usage.total_tokens == 30
        assert kept.metadata == {"case": "streamed"}

    @sdk
    def lists_turn_their_pages_by_themselves():
        made = [store({"list": "pages", "odd": str(number % 2)})[1].id for number in range(5)]
        store({"list": "another"})
        listed = client.chat.completions.list
        here = {"list": "pages"}
        page = listed(metadata=here, limit=2)
        assert [completion.id for completion in page.data] == made[:2] and page.has_next_page()
        assert [completion.id for completion in listed(metadata=here, limit=2)] == made
        assert [completion.id for completion in listed(metadata=here, limit=2, order="desc")] == made[::-1]
        assert [completion.id for completion in listed(metadata=here, after=made[2], limit=1)] == made[3:]
        assert [completion.id for completion in listed(metadata={"list": "pages", "odd": "1"})] == made[1::2]
        assert [completion.id for completion in listed(metadata=here, model=MODEL, limit=4)] == made
        assert list(listed(metadata=here, model="another/model")) == []
        assert list(listed(metadata={"list": "none"})) == []

    @sdk
    def only_what_was_to_be_stored_is_listed():
        _, message = script({"text": "Gone."})
        unstored = client.chat.completions.create(model=MODEL, messages=[message], tools=[server])
        assert unstored.id not in [completion.id for completion in client.chat.completions.list(limit=100)]
        assert is_gone(lambda: client.chat.completions.retrieve(unstored.id))

    @sdk
    def the_async_client_turns_pages():
        made = [store({"list": "async"})[1].id for _ in range(3)]

        async def run():
            async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as asynchronous:
                pages = asynchronous.chat.completions.list(metadata={"list": "async"}, limit=1)
                return [completion.id async for completion in pages]

        assert asyncio.run(run()) == made

    @sdk
    def the_messages_of_a_stored_completion_are_its_questions():
        _, message = script({"text": "Kept."})
        parts = [{"type": "text", "text": "In parts."}]
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}, message]
        answer = client.chat.completions.create(model=MODEL, messages=messages, store=True)
        kept = list(client.chat.completions.messages.list(answer.id, limit=1))
        assert [(m.role, m.content) for m in kept] == [("system", "Be brief."), ("user", "In parts."), ("user", message["content"])]
        assert [part.text for part in kept[1].content_parts] == ["In parts."] and kept[0].content_parts is None
        assert len({m.id for m in kept}) == 3
        newest = list(client.chat.completions.messages.list(answer.id, limit=2, order="desc"))
        assert [m.id for m in newest] == [m.id for m in kept][::-1]

    @sdk
    def metadata_is_replaced():
        _, answer = store({"state": "new", "old": "yes"})
        changed = client.chat.completions.update(answer.id, metadata={"state": "read"})
        assert changed.id == answer.id and changed.metadata == {"state": "read"}
        assert client.chat.completions.retrieve(answer.id).metadata == {"state": "read"}
        assert [c.id for c in client.chat.completions.list(metadata={"state": "read"})] == [answer.id]
        assert list(client.chat.completions.list(metadata={"old": "yes"})) == []
        try:
            client.chat.completions.update(answer.id, metadata={"state": 7})
        except openai.BadRequestError as error:
            assert error.param == "metadata"
        else:
            raise AssertionError("a number was taken")

    @sdk
    def a_deleted_completion_is_gone():
        _, answer = store({"case": "deleted"})
        deleted = client.chat.completions.delete(answer.id)
        assert deleted.id == answer.id and deleted.deleted and deleted.object == "chat.completion.deleted"
        completions = client.chat.completions
        assert is_gone(lambda: completions.retrieve(answer.id))
        assert is_gone(lambda: completions.messages.list(answer.id))
        assert is_gone(lambda: completions.update(answer.id, metadata={"x": "y"}))
        assert is_gone(lambda: completions.delete(answer.id))
        assert list(completions.list(metadata={"case": "deleted"})) == []

    @sdk
    def projects_see_their_own_completions_only():
        keys = []
        for project in ("red", "blue"):
            gateway.run("project", "create", project, "--proof", "app", "--verifier-url", "http://localhost:9/users")
            keys.append(re.search(r"tgk_\w+", gateway.run("key", "create", "--project", project))[0])
        red, blue = (openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) for key in keys)
        made = {owner: store({"case": "projects"}, by=owner)[1].id for owner in (red, blue)}
        for owner, other in ((red, blue), (blue, red), (red, client)):
            completions = other.chat.completions
            assert owner.chat.completions.retrieve(made[owner]).id == made[owner]
            assert made[owner] not in [c.id for c in completions.list(limit=100)]
            assert [c.id for c in owner.chat.completions.list()] == [made[owner]]
            assert is_gone(lambda: completions.retrieve(made[owner]))
            assert is_gone(lambda: completions.messages.list(made[owner]))
            assert is_gone(lambda: completions.update(made[owner], metadata={"case": "stolen"}))
            assert is_gone(lambda: completions.delete(made[owner]))
        assert red.chat.completions.retrieve(made[red]).metadata == {"case": "projects"}

    @sdk
    def a_results_address_is_a_base_url():
        _, prompt = store({"case": "prompt"}, {"text": "Ready."}, tools=[server])
        with openai.OpenAI(base_url=f"{gateway.url}/{prompt.id}", api_key="any", max_retries=0) as direct:
            key, message = script(TURN, {"text": "It is {{tools}}."})
            answer = direct.chat.completions.create(model="", messages=[message])
            assert "It is sum=42" in answer.choices[0].message.content, answer
            asked = gateway.seen(key)[0]["body"]["messages"]
            assert [m["role"] for m in asked] == ["system", "user"] and "Ready." in asked[0]["content"], asked
            deltas = direct.chat.completions.create(model=MODEL, messages=[script({"text": "Streamed."})[1]], stream=True)
            assert "".join(c.choices[0].delta.content or "" for c in deltas if c.choices) == "Streamed."
