"""Uses a sparkherd endpoint as its users do: through OpenAI's own client, with retries off.

    python openai_client.py BASE_URL API_KEY MODEL [grammars]

Asserts what holds for any model, so it runs against a fake engine and a real one alike. Exits 0 if all of it holds.
"""

import json
import sys

import openai


def raises(error, call):
    try:
        call()
    except error as caught:
        return caught
    raise AssertionError(f"{error.__name__} was not raised")


def chat_whole(client, model):
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": "Hello"}], temperature=0, max_tokens=16, user="someone"
    )
    assert answer.object == "chat.completion", answer
    assert answer.model == model, answer
    assert len(answer.choices) == 1, answer
    assert answer.choices[0].message.role == "assistant", answer
    assert isinstance(answer.choices[0].message.content, str), answer
    assert answer.choices[0].finish_reason in ("stop", "length"), answer
    assert answer.usage.prompt_tokens > 0 and 0 < answer.usage.completion_tokens <= 16, answer
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens, answer
    assert answer._request_id == answer.id, answer
    return answer


def chat_stream(client, model, whole):
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
            temperature=0,
            max_completion_tokens=16,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *deltas, last = chunks
    assert last.choices == [] and last.usage == whole.usage, last
    assert all(chunk.usage is None for chunk in deltas), deltas
    assert {chunk.id for chunk in chunks} == {chunks[0].id}, chunks
    roles = [chunk.choices[0].delta.role for chunk in deltas]
    assert roles == ["assistant"] + [None] * (len(deltas) - 1), roles
    text = "".join(chunk.choices[0].delta.content or "" for chunk in deltas)
    assert text == whole.choices[0].message.content, (text, whole)
    reasons = [chunk.choices[0].finish_reason for chunk in deltas]
    assert reasons == [None] * (len(deltas) - 1) + [whole.choices[0].finish_reason], reasons


def chat_accumulated(client, model, whole):
    """The client's own folding of deltas, which notices a repeated role or a missing end."""
    with client.chat.completions.stream(
        model=model, messages=[{"role": "user", "content": "Hello"}], temperature=0, max_tokens=16
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == whole.choices[0].message.content, final
    assert final.choices[0].message.role == "assistant", final


def completions(client, model):
    whole = client.completions.create(model=model, prompt="Hello", max_tokens=4, temperature=0, seed=7)
    assert whole.object == "text_completion" and whole.usage.completion_tokens <= 4, whole
    chunks = list(client.completions.create(model=model, prompt="Hello", max_tokens=4, temperature=0, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == whole.choices[0].text, chunks
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason, chunks


def several(client, model):
    """Choices side by side, whole and streamed."""
    ask = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "n": 2}
    whole = client.chat.completions.create(**ask)
    assert [choice.index for choice in whole.choices] == [0, 1], whole
    assert whole.usage.completion_tokens <= 8, whole
    chunks = list(client.chat.completions.create(stream=True, **ask))
    assert {choice.index for chunk in chunks for choice in chunk.choices} == {0, 1}, chunks
    ended = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(ended) == [0, 1], chunks


def logprobs(client, model):
    """The tokens' bytes together are the text."""
    ask = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4, "temperature": 0}
    whole = client.chat.completions.create(logprobs=True, top_logprobs=2, **ask).choices[0]
    tokens = whole.logprobs.content
    assert 0 < len(tokens) <= 4, whole
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) <= 2, token
        likeliest = [top.logprob for top in token.top_logprobs]
        assert likeliest == sorted(likeliest, reverse=True), token
    text = b"".join(bytes(token.bytes) for token in tokens).decode(errors="replace")
    thoughts = getattr(whole.message, "reasoning", None)
    assert thoughts or text.startswith(whole.message.content.rstrip("\ufffd")), (text, whole)
    chunks = client.chat.completions.create(logprobs=True, top_logprobs=2, stream=True, **ask)
    streamed = [token for chunk in chunks if chunk.choices[0].logprobs for token in chunk.choices[0].logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in tokens], streamed
    echoed = client.completions.create(model=model, prompt="Hello there", max_tokens=1, logprobs=1, echo=True)
    judged = echoed.choices[0].logprobs
    assert judged.token_logprobs[0] is None and all(value <= 0 for value in judged.token_logprobs[1:]), judged
    assert echoed.choices[0].text.startswith("Hello there"), echoed
    assert len(judged.tokens) == len(judged.text_offset) == len(judged.top_logprobs), judged


def tools(client, model):
    """A tool may be called or not; what is called is one of the tools, with arguments that parse."""
    tool = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    conversation = [{"role": "user", "content": "What is the weather in Paris?"}]
    ask = {"model": model, "max_tokens": 32, "tools": [{"type": "function", "function": tool}]}
    answer = client.chat.completions.create(messages=conversation, **ask)
    for call in answer.choices[0].message.tool_calls or []:
        assert call.function.name == "weather" and isinstance(json.loads(call.function.arguments), dict), answer
    past = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    conversation += [
        {"role": "assistant", "content": None, "tool_calls": [past]},
        {"role": "tool", "tool_call_id": "abcdefghi", "content": "sunny"},
    ]
    try:
        answer = client.chat.completions.create(messages=conversation, **ask)
    except openai.BadRequestError as refused:
        # A model whose template knows no tools says so.
        assert refused.code == "invalid_prompt", refused
    else:
        assert answer.choices[0].finish_reason in ("stop", "length", "tool_calls"), answer


def embeddings(client, model):
    """The client asks for base64 by itself; plain numbers are the same vector."""
    encoded = client.embeddings.create(model=model, input=["Hello", "there"])
    plain = client.embeddings.create(model=model, input=["Hello", "there"], encoding_format="float")
    assert [entry.index for entry in encoded.data] == [0, 1] and encoded.usage.total_tokens > 0, encoded
    for one, other in zip(encoded.data, plain.data, strict=True):
        assert len(one.embedding) == len(other.embedding) > 0, (one, other)
        assert all(abs(a - b) < 1e-6 for a, b in zip(one.embedding, other.embedding)), (one, other)
        assert abs(sum(value * value for value in one.embedding) - 1) < 1e-3, one


def structured(client, model):
    """For engines that follow grammars; what ends by itself is valid."""
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}, "size": {"enum": ["small", "large"]}},
        "required": ["ok", "size"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Hello"}],
        # However much white space a weak model puts between its tokens.
        max_tokens=400,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}},
    ).choices[0]
    assert answer.finish_reason == "stop", answer
    value = json.loads(answer.message.content)
    assert isinstance(value["ok"], bool) and value["size"] in ("small", "large"), value
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}
    with client.chat.completions.stream(
        model=model,
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=160,
        tools=[tool],
        tool_choice="required",
        parallel_tool_calls=False,
    ) as stream:
        final = stream.get_final_completion().choices[0]
    (call,) = final.message.tool_calls
    assert call.function.name == "f" and json.loads(call.function.arguments)["size"] in ("small", "large"), final
    assert final.finish_reason == "tool_calls", final


def models(client, model):
    assert model in [entry.id for entry in client.models.list()]
    assert client.models.retrieve(model).id == model


def errors(client, base_url, model):
    def ask(client=client, **changes):
        arguments = {"model": model, "messages": [{"role": "user", "content": "Hello"}]} | changes
        return lambda: client.chat.completions.create(**arguments)

    unknown = raises(openai.NotFoundError, ask(model="no-such-model"))
    assert unknown.code == "model_not_found" and unknown.param == "model", unknown
    functions = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for param, call in (
        ("n", ask(n=9)),
        ("temperature", ask(temperature=3)),
        ("tool_choice", ask(tools=functions, tool_choice="sometimes")),
        ("response_format.type", ask(response_format={"type": "xml"})),
        ("messages", ask(messages=[])),
    ):
        refused = raises(openai.BadRequestError, call)
        assert refused.param == param and refused.type == "invalid_request_error", refused
    too_long = raises(openai.BadRequestError, ask(messages=[{"role": "user", "content": "word " * 200_000}]))
    assert too_long.code == "context_length_exceeded", too_long
    # An endpoint that anybody may use takes any key.
    stranger = openai.OpenAI(base_url=base_url, api_key="sk-spark-wrong", max_retries=0)
    try:
        ask(stranger)()
    except openai.AuthenticationError as error:
        assert error.code == "invalid_api_key", error


def main():
    base_url, api_key, model, *grammars = sys.argv[1:]
    client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0)
    whole = chat_whole(client, model)
    chat_stream(client, model, whole)
    chat_accumulated(client, model, whole)
    completions(client, model)
    several(client, model)
    logprobs(client, model)
    tools(client, model)
    embeddings(client, model)
    if grammars:
        structured(client, model)
    models(client, model)
    errors(client, base_url, model)
    print(f"openai-python {openai.__version__}: all as it should be")


if __name__ == "__main__":
    main()
