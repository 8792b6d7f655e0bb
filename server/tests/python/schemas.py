"""Asks a model for JSON under schemas, as answers and as arguments of calls, and judges what comes by jsonschema.

    python schemas.py BASE_URL API_KEY MODEL DIALECT

What ends by itself has to parse and to be valid; what is cut has to say `length`. A model of random weights is the
hardest case: it never does by itself what the grammar does not force. DIALECT is how the model writes its calls:
hermes, llama3_json or mistral.
"""

import collections
import concurrent.futures
import itertools
import json
import sys

import jsonschema
import openai

# Nearly all answers whose length is bounded end within so many tokens of one byte.
ENOUGH = 1000
CUT = 6
SEEDS = range(8)

NODE = {
    "type": "object",
    "properties": {"value": {"type": "integer", "minimum": 0, "maximum": 9}, "next": {"$ref": "#/$defs/next"}},
    "required": ["value", "next"],
    "additionalProperties": False,
}


def said(text):
    return [{"role": "user", "content": text}]


def closed(**properties):
    """An object of exactly these properties."""
    return {
        "type": "object", "properties": properties, "required": list(properties), "additionalProperties": False,
    }


SCHEMAS = {
    "nested": closed(a=closed(b=closed(c={"type": "boolean"}), d={"type": "null"}), e={"const": "é\"\n"}),
    "enum": {"enum": ["red", "", 3, -0.5, None, {"a": [1, 2]}, [True]]},
    "array": {"type": "array", "items": {"enum": ["a", "bb"]}, "minItems": 2, "maxItems": 4},
    "tuples": {"type": "array", "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}, "maxItems": 3},
    "any": {"anyOf": [closed(kind={"const": "ram"}), closed(kind={"const": "ewe"}, lambs={"type": "integer", "minimum": 0, "maximum": 4})]},
    "list": {"$ref": "#/$defs/node", "$defs": {"node": NODE, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}}},
    "integer": {"type": "integer", "minimum": -17, "maximum": 1234},
    "number": closed(x={"type": "number", "exclusiveMinimum": -2.5, "maximum": 3.75}),
    "multiple": {"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 700},
    "pattern": closed(code={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3}$"}),
    "text": {"type": "string", "minLength": 3, "maxLength": 9},
    "format": closed(day={"type": "string", "format": "date"}, id={"type": "string", "format": "uuid"}),
    "optional": {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}}, "additionalProperties": False},
    "open": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": {"type": "integer", "minimum": 1, "maximum": 9}},
}
ANY_OBJECT = {"type": "object"}

FUNCTIONS = {
    "weather": closed(city={"enum": ["Paris", "Rome"]}, days={"type": "integer", "minimum": 1, "maximum": 14}),
    "note": closed(
        text={"type": "string", "maxLength": 12},
        tags={"type": "array", "items": {"type": "string", "pattern": "^[a-z]{1,4}$"}, "maxItems": 2},
        where={"anyOf": [{"type": "null"}, closed(line={"type": "number", "minimum": 0, "maximum": 9})]},
    ),
    "ping": None,
}
NAMED = {"type": "function", "function": {"name": "note"}}

Answer = collections.namedtuple("Answer", "content calls reason tokens")
Call = collections.namedtuple("Call", "name arguments")


def validator(schema):
    # Formats are promised too, not only annotated.
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)


def whole(client, **ask):
    answer = client.chat.completions.create(**ask)
    choice = answer.choices[0]
    calls = [Call(call.function.name, call.function.arguments) for call in choice.message.tool_calls or []]
    return Answer(choice.message.content, calls, choice.finish_reason, answer.usage.completion_tokens)


def streamed(client, **ask):
    content, calls, reason, tokens = "", {}, None, None
    for chunk in client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ask):
        if not chunk.choices:
            tokens = chunk.usage.completion_tokens
            continue
        (choice,) = chunk.choices
        assert reason is None, "something follows the end"
        content += choice.delta.content or ""
        for delta in choice.delta.tool_calls or []:
            call = calls.setdefault(delta.index, ["", ""])
            call[0] += delta.function.name or ""
            call[1] += delta.function.arguments or ""
        reason = choice.finish_reason
    return Answer(content, [Call(*calls[index]) for index in sorted(calls)], reason, tokens)


def judged(client, ask, judge):
    """Asks, judges what has ended by itself, and tells whether it has."""
    answer = (streamed if ask.pop("streams") else whole)(client, **ask)
    if answer.reason == "length":
        assert answer.tokens == ask["max_tokens"], (ask, answer)
        return False
    try:
        judge(answer)
    except Exception as error:
        raise AssertionError(f"{answer} for {ask}") from error
    return True


def under_schemas():
    for (name, schema), seed in itertools.product(SCHEMAS.items(), SEEDS):
        form = {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}
        yield name, {"response_format": form, "seed": seed, "streams": seed % 2 == 1}, schema
    for seed in range(5 * len(SEEDS)):
        ask = {"response_format": {"type": "json_object"}, "seed": seed, "streams": seed % 2 == 1}
        yield "json_object", ask, ANY_OBJECT


def of_schema(schema):
    def judge(answer):
        assert answer.reason == "stop" and not answer.calls
        validator(schema).validate(json.loads(answer.content))

    return judge


def under_tools():
    tools = [
        {"type": "function", "function": {"name": name} | ({"parameters": schema} if schema else {})}
        for name, schema in FUNCTIONS.items()
    ]
    modes = itertools.product(("required", NAMED), (True, False), (True, False), (True, False))
    for (choice, parallel, strict, streams), seed in itertools.product(modes, SEEDS):
        told = [tool | {"function": tool["function"] | {"strict": strict}} for tool in tools]
        name = "named" if choice is NAMED else choice
        ask = {"tools": told, "tool_choice": choice, "parallel_tool_calls": parallel, "seed": seed, "streams": streams}
        yield f"{name}, {'' if parallel else 'not '}parallel", ask


def of_calls(ask):
    def judge(answer):
        assert answer.reason == "tool_calls" and answer.calls and not answer.content
        assert ask["parallel_tool_calls"] or len(answer.calls) == 1
        allowed = ["note"] if ask["tool_choice"] is NAMED else FUNCTIONS
        for call in answer.calls:
            assert call.name in allowed
            validator(FUNCTIONS[call.name] or closed()).validate(json.loads(call.arguments))

    return judge


def main():
    base_url, api_key, model, dialect = sys.argv[1:]
    client = openai.OpenAI(base_url=base_url, api_key=api_key, max_retries=0)
    # A thought that a random model opens is one that it never closes.
    plain = {"model": model, "temperature": 2, "extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
    asks = [(name, ask, of_schema(schema)) for name, ask, schema in under_schemas()]
    asks += [(name, ask, of_calls(ask)) for name, ask in under_tools()]
    # Random weights follow their prompt more than chance: each seed gets another one.
    asks = [(name, plain | {"messages": said(f"Hello {ask['seed']}")} | ask, judge) for name, ask, judge in asks]
    ended, cut = collections.Counter(), 0
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        long = [(name, pool.submit(judged, client, ask | {"max_tokens": ENOUGH}, judge)) for name, ask, judge in asks]
        short = [pool.submit(judged, client, ask | {"max_tokens": CUT}, judge) for _, ask, judge in asks]
        for name, answer in long:
            ended[name] += answer.result()
        cut = sum(not answer.result() for answer in short)
    # Nothing makes random weights close a thought, or an object that may have any members.
    assert ended.total() > len(asks) // 3 and cut > len(asks) // 2, (ended, cut)
    print(f"{dialect}: {ended.total()} of {len(asks)} answers ended by themselves and are valid, {cut} were cut and say so")


if __name__ == "__main__":
    main()
