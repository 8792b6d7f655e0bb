"""Makes chat.json: conversations as transformers renders them with the templates in chat/.

    python chat.py      writes chat.json again; it needs transformers and no model

The templates are ours. They follow what the makers of Llama 3, Qwen 2.5, Qwen 3 and Mistral publish of their formats
(tokens, layout, branches), so that each branch a real template has is rendered by both sides; `language.jinja` is for
the language itself. The conversations are in the form of OpenAI's API, as the engine gets them; `plain` says what that
means to a template.
"""

import json
from datetime import datetime
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
# The engine's tests have the same clock.
NOW = datetime(2026, 8, 22, 12, 0)
# Name of the template, its tokens, and whether it reads content that is a list of parts.
FAMILIES = {
    "llama3": ("<|begin_of_text|>", "<|eot_id|>", False),
    "qwen25": (None, "<|im_end|>", False),
    "qwen3": (None, "<|im_end|>", False),
    "mistral_list": ("<s>", "</s>", False),
    "mistral_named": ("<s>", "</s>", True),
    "language": ("<s>", "</s>", False),
}


class FixedClock(datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def user(content):
    return {"role": "user", "content": content}


def system(content):
    return {"role": "system", "content": content}


def assistant(content=None, calls=(), **more):
    message = {"role": "assistant", "content": content} | more
    if calls:
        message["tool_calls"] = [
            {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
            for id, name, arguments in calls
        ]
    return message


def result(id, content):
    return {"role": "tool", "tool_call_id": id, "content": content}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather \"now\" <in> a city & its <b>suburbs</b>, 86 °C at most",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name, e.g. Zürich"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "array", "items": {"type": "integer", "minimum": 0}, "default": [0, 1]},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
CALL = ("abc123DEF", "get_weather", '{"unit": "celsius", "city": "Zürich", "days": [0, 1.5, 1e-7], "x": null}')
SECOND_CALL = ("000000001", "clock", "{}")
ASKED = user("What is the weather in Zürich?")

# Name: messages, and what else is in the request.
CONVERSATIONS = {
    "user": ([user("Hello")], {}),
    "system_and_user": ([system("Be brief."), user("What is sparkherd?")], {}),
    "two_turns": ([user("Hello"), assistant("Hello! Ask me something."), user("Who are you?")], {}),
    "developer": ([{"role": "developer", "content": "Be brief."}, user("Hello")], {}),
    "empty_content": ([system(""), user("")], {}),
    "null_content": ([user("Hello"), assistant(None), user("And?")], {}),
    "spaces_around": ([system(" \n Be brief. \n"), user("  What is a surge? \n\n")], {}),
    "not_ascii": ([user("Wie heiß? 86 °C, 日本語, 🐑")], {}),
    "looks_like_a_template": ([user("{{ bos_token }} {% if x %} {# no #} <b>&amp;</b> 'a' \"b\" \\n")], {}),
    "looks_like_markers": ([user("</think> <tool_call> [TOOL_CALLS] <|im_end|> <tool_response>x</tool_response>")], {}),
    "parts": ([user([{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}])], {}),
    "two_users": ([user("One."), user("Two.")], {}),
    "system_later": ([user("Hello"), assistant("Hi"), system("Now be rude."), user("Hello")], {}),
    "unknown_role": ([{"role": "narrator", "content": "Once upon a time"}], {}),
    "tools": ([ASKED], {"tools": [WEATHER, CLOCK]}),
    "tools_and_system": ([system("Be brief."), ASKED], {"tools": [CLOCK]}),
    "call": ([ASKED, assistant(None, [CALL])], {"tools": [WEATHER]}),
    "call_with_text": ([ASKED, assistant("Let me see.", [CALL]), result(CALL[0], "12 °C")], {"tools": [WEATHER]}),
    "empty_content_and_call": ([ASKED, assistant("", [CALL]), result(CALL[0], "")], {"tools": [WEATHER]}),
    "parallel_calls": (
        [ASKED, assistant(None, [CALL, SECOND_CALL]), result(CALL[0], '{"t": 12}'), result(SECOND_CALL[0], "noon")],
        {"tools": [WEATHER, CLOCK]},
    ),
    "results_and_on": (
        [
            system("Be brief."), ASKED, assistant(None, [CALL]), result(CALL[0], "12 °C"), assistant("12 °C."),
            user("And the time?"), assistant(None, [SECOND_CALL]), result(SECOND_CALL[0], "noon"), assistant("Noon."),
            user("Thanks."),
        ],
        {"tools": [WEATHER, CLOCK]},
    ),
    "calls_without_tools": ([ASKED, assistant(None, [CALL]), result(CALL[0], "12 °C")], {}),
    "no_calls": ([ASKED, assistant("I cannot.") | {"tool_calls": []}, user("Pity.")], {"tools": [CLOCK]}),
    "arguments_not_json": ([ASKED, assistant(None, [(CALL[0], "clock", "now!")])], {"tools": [CLOCK]}),
    "arguments_empty": ([ASKED, assistant(None, [(CALL[0], "clock", "")])], {"tools": [CLOCK]}),
    "reasoning_in_history": (
        [user("1+1?"), assistant("2", reasoning_content="Easy."), user("2+2?"), assistant("4", reasoning_content="\nHm.\n")],
        {},
    ),
    "reasoning_by_another_name": ([user("1+1?"), assistant("2", reasoning="Easy.")], {}),
    "reasoning_in_content": ([user("1+1?"), assistant("<think>\nEasy.\n</think>\n\n2"), user("2+2?")], {}),
    "reasoning_and_calls": (
        [ASKED, assistant("", [CALL], reasoning_content="I need it."), result(CALL[0], "12 °C"),
         assistant("Well,", [SECOND_CALL], reasoning_content="And?"), result(SECOND_CALL[0], "noon")],
        {"tools": [WEATHER, CLOCK]},
    ),
    "no_thinking": ([user("1+1?")], {"chat_template_kwargs": {"enable_thinking": False}}),
    "thinking": ([user("1+1?")], {"chat_template_kwargs": {"enable_thinking": True}}),
    "kwargs": (
        [user("Hello")],
        {
            "tools": [CLOCK],
            "chat_template_kwargs": {"date_string": "26 Jul 2024", "tools_in_user_message": False, "no_default_system": True},
        },
    ),
    "documents": ([user("Hello")], {"documents": [{"title": "A", "text": "Text of <A>"}, {"title": "B", "text": ""}]}),
    "continued": ([user("Count."), assistant("One, two,")], {"continue_final_message": True}),
    "continued_with_spaces": ([user("Count."), assistant(" One, two, \n")], {"continue_final_message": True}),
    "continued_user": ([user("Count to")], {"continue_final_message": True}),
    "continued_call": ([ASKED, assistant(None, [CALL])], {"continue_final_message": True, "tools": [WEATHER]}),
}


def plain(message: dict, reads_parts: bool) -> dict:
    """The message in the form of transformers' own API, as vLLM makes it of OpenAI's."""
    message = json.loads(json.dumps(message))
    if message["role"] == "developer":
        message["role"] = "system"
    if isinstance(message.get("content"), list) and not reads_parts:
        message["content"] = "\n".join(part["text"] for part in message["content"])
    if message.get("tool_calls") == []:
        del message["tool_calls"]
    if message.get("content") is None:
        message["content"] = ""
    for call in message.get("tool_calls") or []:
        try:
            call["function"]["arguments"] = json.loads(call["function"]["arguments"] or "{}")
        except json.JSONDecodeError:
            pass
    return message


def rendered(family: str, messages: list[dict], more: dict, generation_prompt: bool) -> dict:
    bos, eos, reads_parts = FAMILIES[family]
    source = (HERE / "chat" / f"{family}.jinja").read_text(encoding="utf-8")
    tokens = {name: token for name, token in (("bos_token", bos), ("eos_token", eos)) if token is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), chat_template=source, **tokens)
    try:
        text = tokenizer.apply_chat_template(
            [plain(message, reads_parts) for message in messages],
            tools=more.get("tools"),
            documents=more.get("documents"),
            add_generation_prompt=generation_prompt,
            continue_final_message=more.get("continue_final_message", False),
            tokenize=False,
            **more.get("chat_template_kwargs", {}),
        )
        return {"text": text}
    except Exception as error:  # jinja2's own classes are no part of transformers' interface
        return {"error": str(error)}


def main() -> None:
    chat_template_utils.datetime = FixedClock
    conversations = []
    for name, (messages, more) in CONVERSATIONS.items():
        prompts = (False,) if "continue_final_message" in more else (True, False)
        expected = {
            family: {str(prompt).lower(): rendered(family, messages, more, prompt) for prompt in prompts}
            for family in FAMILIES
        }
        conversations.append({"name": name, "messages": messages} | more | {"rendered": expected})
    families = {name: {"bos_token": bos, "eos_token": eos} for name, (bos, eos, _) in FAMILIES.items()}
    document = {"families": families, "conversations": conversations}
    (HERE / "chat.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    results = [result for c in conversations for by_prompt in c["rendered"].values() for result in by_prompt.values()]
    print(f"{len(results)} prompts, of which {sum('error' in result for result in results)} are refused")


if __name__ == "__main__":
    main()
