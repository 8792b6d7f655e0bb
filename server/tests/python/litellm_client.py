"""Uses a sparkherd endpoint through LiteLLM, as an OpenAI-compatible one, with retries off.

    python litellm_client.py BASE_URL API_KEY MODEL [grammars]

Asserts what holds for any model, so it runs against a fake engine and a real one alike. Exits 0 if all of it holds.
"""

import asyncio
import importlib.metadata
import json
import os
import sys

# Its table of prices is in the package; a newer one from the network is nothing to us.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

HELLO = [{"role": "user", "content": "Hello"}]
# An answer under the schema ends within these, however much white space a weak model puts between its tokens.
ENOUGH = 400
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "size": {"enum": ["small", "large"]}},
    "required": ["ok", "size"],
    "additionalProperties": False,
}


def raises(error, call):
    try:
        call()
    except error as caught:
        return caught
    raise AssertionError(f"{error.__name__} was not raised")


class Endpoint:
    """LiteLLM's functions, told where to ask."""

    def __init__(self, base_url, api_key, model):
        self.model = model
        self.where = {"api_base": base_url, "api_key": api_key, "num_retries": 0, "max_retries": 0}

    def chat(self, **ask):
        return litellm.completion(**({"model": f"openai/{self.model}", "messages": HELLO} | self.where | ask))

    async def chat_later(self, **ask):
        return await litellm.acompletion(
            **({"model": f"openai/{self.model}", "messages": HELLO} | self.where | ask)
        )

    def complete(self, **ask):
        return litellm.text_completion(
            **({"model": f"text-completion-openai/{self.model}", "prompt": "Hello"} | self.where | ask)
        )

    def embed(self, texts, **ask):
        return litellm.embedding(model=f"openai/{self.model}", input=texts, **(self.where | ask))


def chat(endpoint):
    whole = endpoint.chat(temperature=0, max_tokens=16, user="someone")
    message = whole.choices[0].message
    assert message.role == "assistant" and isinstance(message.content, str), whole
    assert whole.choices[0].finish_reason in ("stop", "length"), whole
    assert whole.usage.prompt_tokens > 0 and 0 < whole.usage.completion_tokens <= 16, whole
    chunks = list(endpoint.chat(temperature=0, max_tokens=16, stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == message.content, (text, whole)
    folded = litellm.stream_chunk_builder(chunks, messages=HELLO)
    assert folded.choices[0].message.content == message.content, folded
    assert folded.choices[0].finish_reason == whole.choices[0].finish_reason, folded
    assert folded.usage.completion_tokens == whole.usage.completion_tokens, folded


def side_by_side(endpoint):
    """Each of several at once gets its own answer."""

    async def ask():
        asked = (endpoint.chat_later(temperature=0, max_tokens=count) for count in range(1, 5))
        return await asyncio.gather(*asked)

    for count, answer in enumerate(asyncio.run(ask()), start=1):
        assert answer.usage.completion_tokens <= count, answer


def completions(endpoint):
    ask = {"max_tokens": 4, "temperature": 0, "seed": 7}
    whole = endpoint.complete(**ask)
    assert whole.usage.completion_tokens <= 4, whole
    text = "".join(chunk.choices[0].text or "" for chunk in endpoint.complete(stream=True, **ask))
    assert text == whole.choices[0].text, (text, whole)


def logprobs(endpoint):
    answer = endpoint.chat(max_tokens=4, temperature=0, logprobs=True, top_logprobs=2).choices[0]
    assert 0 < len(answer.logprobs.content) <= 4, answer
    for token in answer.logprobs.content:
        assert token.logprob <= 0 and len(token.top_logprobs) <= 2, token


def tools(endpoint):
    """A tool may be called or not; what is called is one of the tools, with arguments that parse."""
    function = {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
    answer = endpoint.chat(max_tokens=32, tools=[{"type": "function", "function": function}])
    for call in answer.choices[0].message.tool_calls or []:
        assert call.function.name == "weather" and isinstance(json.loads(call.function.arguments), dict), answer


def embeddings(endpoint):
    plain = endpoint.embed(["Hello", "there"], encoding_format="float")
    assert [entry["index"] for entry in plain.data] == [0, 1] and plain.usage.total_tokens > 0, plain
    for entry in plain.data:
        assert abs(sum(value * value for value in entry["embedding"]) - 1) < 1e-3, entry


def structured(endpoint):
    """For engines that follow grammars; what ends by itself is valid, what is cut says so."""
    form = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}
    answer = endpoint.chat(max_tokens=ENOUGH, response_format=form).choices[0]
    assert answer.finish_reason == "stop", answer
    valid(json.loads(answer.message.content))
    assert endpoint.chat(max_tokens=2, response_format=form).choices[0].finish_reason == "length"
    tool = {"type": "function", "function": {"name": "f", "strict": True, "parameters": SCHEMA}}
    named = {"type": "function", "function": {"name": "f"}}
    for choice in ("required", named):
        ask = {"max_tokens": 160, "tools": [tool], "tool_choice": choice, "parallel_tool_calls": False}
        whole = endpoint.chat(**ask)
        folded = litellm.stream_chunk_builder(list(endpoint.chat(stream=True, **ask)), messages=HELLO)
        for answer in (whole, folded):
            (call,) = answer.choices[0].message.tool_calls
            assert call.id and call.function.name == "f", answer
            valid(json.loads(call.function.arguments))
            assert answer.choices[0].finish_reason == "tool_calls", answer


def valid(value):
    assert isinstance(value["ok"], bool) and value["size"] in ("small", "large"), value


def errors(endpoint):
    unknown = raises(litellm.NotFoundError, lambda: endpoint.chat(model="openai/no-such-model"))
    assert "no-such-model" in str(unknown), unknown
    refused = raises(litellm.BadRequestError, lambda: endpoint.chat(n=9))
    assert "'n'" in str(refused), refused
    long = [{"role": "user", "content": "word " * 200_000}]
    # What LiteLLM's own fall-backs to models with more context act on.
    raises(litellm.ContextWindowExceededError, lambda: endpoint.chat(messages=long))
    raises(litellm.AuthenticationError, lambda: endpoint.chat(api_key="sk-spark-wrong"))


def main():
    base_url, api_key, model, *grammars = sys.argv[1:]
    litellm.suppress_debug_info = True
    endpoint = Endpoint(base_url, api_key, model)
    chat(endpoint)
    side_by_side(endpoint)
    completions(endpoint)
    logprobs(endpoint)
    tools(endpoint)
    embeddings(endpoint)
    if grammars:
        structured(endpoint)
    errors(endpoint)
    print(f"LiteLLM {importlib.metadata.version('litellm')}: all as it should be")


if __name__ == "__main__":
    main()
