"""Uses a sparkherd endpoint as its users do: through OpenAI's own client, with retries off.

    python openai_client.py BASE_URL API_KEY MODEL

Asserts what holds for any model, so it runs against a fake engine and a real one alike. Exits 0 if all of it holds.
"""

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


def models(client, model):
    assert model in [entry.id for entry in client.models.list()]
    assert client.models.retrieve(model).id == model


def errors(client, base_url, model):
    def ask(client=client, **changes):
        arguments = {"model": model, "messages": [{"role": "user", "content": "Hello"}]} | changes
        return lambda: client.chat.completions.create(**arguments)

    unknown = raises(openai.NotFoundError, ask(model="no-such-model"))
    assert unknown.code == "model_not_found" and unknown.param == "model", unknown
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    for param, call in (
        ("n", ask(n=2)),
        ("temperature", ask(temperature=3)),
        ("tools", ask(tools=tools)),
        ("response_format", ask(response_format={"type": "json_object"})),
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
    base_url, api_key, model = sys.argv[1:]
    client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0)
    whole = chat_whole(client, model)
    chat_stream(client, model, whole)
    chat_accumulated(client, model, whole)
    completions(client, model)
    models(client, model)
    errors(client, base_url, model)
    print(f"openai-python {openai.__version__}: all as it should be")


if __name__ == "__main__":
    main()
