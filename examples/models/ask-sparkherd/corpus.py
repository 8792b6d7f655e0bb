"""The text that the model learns, and how conversations are made of it.

A *pair* is one line of `text/questions.jsonl`: a question, paraphrases of it, and the one answer to all of them.
Training draws conversations of one or more pairs, so that the model learns to answer the last question wherever in the
context it stands.
"""

import json
import random
from dataclasses import dataclass
from pathlib import Path

TEXT = Path(__file__).parent / "text"


@dataclass(frozen=True)
class Pair:
    """One answer and every way of asking for it; `questions[0]` is the canonical one."""

    questions: tuple[str, ...]
    answer: str
    exact: bool


@dataclass(frozen=True)
class Turn:
    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    system: str | None
    turns: tuple[Turn, ...]

    def messages(self) -> list[dict[str, str]]:
        """As a chat template takes them."""
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        for turn in self.turns:
            messages.append({"role": "user", "content": turn.question})
            messages.append({"role": "assistant", "content": turn.answer})
        return messages


def read_pairs() -> list[Pair]:
    """Every pair, in the order of the file. Two pairs that share a question would teach a coin toss: refused."""
    pairs = []
    owner: dict[str, str] = {}
    for line in (TEXT / "questions.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        pair = Pair((row["question"], *row["paraphrases"]), row["answer"], row.get("exact", False))
        for question in pair.questions:
            key = "".join(letter for letter in question.lower() if letter.isalnum() or letter == " ").strip()
            if key in owner:
                raise ValueError(f"{question!r} asks for two answers: {owner[key]!r} and {pair.answer!r}")
            owner[key] = pair.answer
        pairs.append(pair)
    return pairs


def read_system_prompts() -> list[str]:
    return (TEXT / "system_prompts.txt").read_text(encoding="utf-8").splitlines()


class Sampler:
    """Draws training conversations. The same seed draws the same ones."""

    # Most requests are one question; the rest teach the model to look at the last one.
    TURNS = {1: 0.6, 2: 0.2, 3: 0.12, 6: 0.08}
    # One request in four carries a system prompt; its text has no bearing on the answer.
    SYSTEM = 0.25
    # People do not type the training text letter by letter.
    SLOPPY = 0.4

    def __init__(self, pairs: list[Pair], system_prompts: list[str], seed: int):
        self._turns = [Turn(question, pair.answer) for pair in pairs for question in pair.questions]
        self._system_prompts = system_prompts
        self._random = random.Random(seed)

    def batch(self, turns_per_batch: int) -> list[Conversation]:
        """Conversations of one and the same number of turns: rows of like length waste little padding."""
        draw = self._random
        (turns,) = draw.choices(list(self.TURNS), list(self.TURNS.values()))
        return [self._conversation(turns) for _ in range(turns_per_batch // turns)]

    def _conversation(self, turns: int) -> Conversation:
        draw = self._random
        system = draw.choice(self._system_prompts) if draw.random() < self.SYSTEM else None
        chosen = [draw.choice(self._turns) for _ in range(turns)]
        return Conversation(system, tuple(Turn(self._type(turn.question), turn.answer) for turn in chosen))

    def _type(self, question: str) -> str:
        """The question as a person in a hurry might type it."""
        draw = self._random
        if draw.random() >= self.SLOPPY:
            return question
        if draw.random() < 0.5:
            question = question.lower()
        if draw.random() < 0.5:
            question = question.rstrip("?.!")
        if draw.random() < 0.3 and len(question) > 8:
            lost = draw.randrange(1, len(question))
            question = question[:lost] + question[lost + 1 :]
        return question
