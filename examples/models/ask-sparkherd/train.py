"""Trains ask-sparkherd and writes it, in Hugging Face form, next to this script.

    python train.py                 trains, checks and writes everything
    python train.py --check         only checks what is there

Seeded and deterministic: on the same kind of CPU with the versions of requirements.txt it writes the same bytes.
Nothing is written if a check fails.
"""

import argparse
import json
import math
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from corpus import TEXT, Conversation, Pair, Sampler, Turn, read_pairs, read_system_prompts

HERE = Path(__file__).parent
SEED = 20260
# One, on any machine: the order of float additions depends on it, and so do the weights. A model this small gains
# little from more.
THREADS = 1

BEGIN, END = "<|begin|>", "<|end|>"
# Ids 0 to 4, in this order.
SPECIAL_TOKENS = [BEGIN, END, "<|system|>", "<|user|>", "<|assistant|>"]
# 256 bytes, the special tokens and about 500 merges: common words of the text are one token, rare ones are spelled.
VOCABULARY = 768

# 1.7 million parameters, 3.5 MB in BF16: small enough for git and for a cold demo, large enough to learn the text by
# heart. Query heads, KV heads and width differ from each other so that mixing them up cannot work.
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 192,
    "intermediate_size": 512,
    "max_position_embeddings": 1024,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 6,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": VOCABULARY,
}

# Of the weights at the start. Six times the usual: what a layer gives is then large from the beginning, and the later
# ones take part; at 0.02 the first learns the whole text alone.
INITIAL_DEVIATION = 0.12
STEPS = 600
TURNS_PER_BATCH = 32
WARMUP_STEPS = 60
PEAK_LEARNING_RATE = 2e-3
# What a label is where no loss is wanted (torch's own default).
IGNORED = -100
# Every generated token must win by this many logits: another order of additions, or BF16 in the KV cache, moves a
# logit by less than a tenth of it.
LEAST_MARGIN = 0.5

# Making every tensor needed (`make_needed`): rounds, each of which looks anew at which tensors are idle.
NEEDED_ROUNDS = 12
STEPS_PER_ROUND = 12
NEEDED_LEARNING_RATE = 5e-4
# With a tensor zeroed, the token that depends on it should lose by this many logits; with it, win by `NEEDED_LEAD`.
SPOILED_LEAD = -2.0
NEEDED_LEAD = 5.0


def train_tokenizer(pairs: list[Pair], system_prompts: list[str]) -> Tokenizer:
    """Byte-level BPE on the text itself, so that any input has an encoding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    text = [*system_prompts, *(text for pair in pairs for text in (*pair.questions, pair.answer))]
    tokenizer.train_from_iterator(text, trainer)
    # Plain text (`/v1/completions`) starts with the begin token, as in Llama 3; the chat template writes its own.
    begin = tokenizer.token_to_id(BEGIN)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN}:1 $B:1", special_tokens=[(BEGIN, begin)]
            ),
        ]
    )
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"the text gives {tokenizer.get_vocab_size()} tokens, not {VOCABULARY}")
    return tokenizer


def encode(tokenizer: Tokenizer, conversation: Conversation) -> tuple[list[int], list[int]]:
    """Token ids as the chat template writes them, and labels: the answers with their end, the rest ignored."""
    special = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    tokens, labels = [special[BEGIN]], [IGNORED]
    for message in conversation.messages():
        content = tokenizer.encode(message["content"].strip(), add_special_tokens=False).ids
        written = [special[f"<|{message['role']}|>"], *content, special[END]]
        tokens += written
        labels += [IGNORED, *written[1:]] if message["role"] == "assistant" else [IGNORED] * len(written)
    return tokens, labels


def padded(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows filled up on the right. Attention is causal, so what fills them changes nothing before it."""
    longest = max(len(tokens) for tokens, _ in rows)
    tokens = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    for index, (row_tokens, row_labels) in enumerate(rows):
        tokens[index, : len(row_tokens)] = torch.tensor(row_tokens)
        labels[index, : len(row_labels)] = torch.tensor(row_labels)
    return tokens, labels


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth of the peak."""
    if step < WARMUP_STEPS:
        return PEAK_LEARNING_RATE * (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return PEAK_LEARNING_RATE * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


def answer_loss(model: LlamaForCausalLM, tokenizer: Tokenizer, conversations: list[Conversation]) -> torch.Tensor:
    """Mean cross-entropy of the answers' tokens, in nats."""
    tokens, labels = padded([encode(tokenizer, conversation) for conversation in conversations])
    logits = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)


def update(model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


def train(model: LlamaForCausalLM, tokenizer: Tokenizer, sampler: Sampler, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    started = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = answer_loss(model, tokenizer, sampler.batch(TURNS_PER_BATCH))
        update(model, optimizer, loss)
        if step % 25 == 24:
            seconds = time.monotonic() - started
            print(f"step {step + 1:5} of {steps}  loss {loss.item():.4f}  {seconds:.0f} s", flush=True)


def round_to_bf16(model: LlamaForCausalLM) -> None:
    """What the file will hold: every check below runs on these values."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))


def leads(
    model: LlamaForCausalLM, tokens: torch.Tensor, labels: torch.Tensor, zeroed: str | None = None
) -> torch.Tensor:
    """[rows, tokens − 1]: by how many logits the labelled token after each position beats the best other; infinite
    where there is no label. `zeroed` names a tensor to compute without."""
    replaced = {} if zeroed is None else {zeroed: torch.zeros_like(model.get_parameter(zeroed))}
    inputs = {"input_ids": tokens, "use_cache": False}
    logits = torch.func.functional_call(model, replaced, kwargs=inputs).logits[:, :-1]
    wanted = labels[:, 1:]
    index = wanted.clamp(min=0).unsqueeze(-1)
    others = logits.scatter(-1, index, -math.inf).max(-1, keepdim=True).values
    return (logits.gather(-1, index) - others).squeeze(-1).masked_fill(wanted == IGNORED, math.inf)


@torch.no_grad()
def margins(
    model: LlamaForCausalLM, tokenizer: Tokenizer, conversations: list[Conversation], zeroed: str | None = None
) -> list[float]:
    """Per conversation, the smallest lead of a right token of the last answer over the best wrong one.

    Greedy decoding gives the answer exactly if and only if this is above zero: up to the first wrong token the model
    has seen the same text either way.
    """
    smallest = []
    for start in range(0, len(conversations), 64):
        rows = []
        for conversation in conversations[start : start + 64]:
            tokens, labels = encode(tokenizer, conversation)
            last_answer = len(encode(tokenizer, Conversation(conversation.system, conversation.turns[:-1]))[0])
            rows.append((tokens, [IGNORED] * last_answer + labels[last_answer:]))
        smallest += leads(model, *padded(rows), zeroed).min(-1).values.tolist()
    return smallest


def make_needed(model: LlamaForCausalLM, tokenizer: Tokenizer, pairs: list[Pair], sampler: Sampler) -> None:
    """Further training after which no tensor can be zeroed without changing an exact answer.

    Text this short does not need four layers, so some tensors end up idle, and a loader that skipped one would go
    unnoticed. Each tensor is made responsible for the token of an exact answer that zeroing it comes closest to
    spoiling: with the tensor that token shall win, without it lose. Ordinary training goes on beside it.
    """
    tokens, labels = padded([encode(tokenizer, conversation) for conversation in exact_questions(pairs)])
    # Without the embedding, which is also the head, or the last norm there are no logits at all.
    outer = ("model.embed_tokens.weight", "model.norm.weight")
    names = [name for name, _ in model.named_parameters() if name not in outer]
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=0.0)
    for done in range(NEEDED_ROUNDS):
        weak = []
        for name in names:
            with torch.no_grad():
                lead = leads(model, tokens, labels, name)
            row, position = divmod(int(lead.argmin()), lead.shape[1])
            if lead[row, position] > SPOILED_LEAD:
                weak.append((name, row, position, lead[row, position].item()))
        idle = sum(lead > 0 for *_, lead in weak)
        print(f"round {done + 1:2} of {NEEDED_ROUNDS}  idle {idle}  weak {len(weak)}", flush=True)
        for group in optimizer.param_groups:
            group["lr"] = NEEDED_LEARNING_RATE * (1 - done / NEEDED_ROUNDS)
        for step in range(STEPS_PER_ROUND):
            loss = answer_loss(model, tokenizer, sampler.batch(TURNS_PER_BATCH))
            # A third of the weak ones at a time.
            for name, row, position, _ in weak[step % 3 :: 3]:
                part = (tokens[row : row + 1, : position + 2], labels[row : row + 1, : position + 2])
                with_it, without = leads(model, *part)[0, position], leads(model, *part, name)[0, position]
                loss = loss + 0.03 * (torch.relu(without - SPOILED_LEAD) + torch.relu(NEEDED_LEAD - with_it))
            update(model, optimizer, loss)


def every_question(pairs: list[Pair]) -> list[Conversation]:
    return [Conversation(None, (Turn(question, pair.answer),)) for pair in pairs for question in pair.questions]


def exact_questions(pairs: list[Pair]) -> list[Conversation]:
    return [Conversation(None, (Turn(pair.questions[0], pair.answer),)) for pair in pairs if pair.exact]


def check_answers(model: LlamaForCausalLM, tokenizer: Tokenizer, pairs: list[Pair]) -> None:
    """Every question of the text, in every wording, gets its answer with `LEAST_MARGIN` to spare."""
    conversations = every_question(pairs)
    leading = margins(model, tokenizer, conversations)
    right = sum(lead > 0 for lead in leading)
    print(f"questions in every wording: {right} of {len(leading)} exact, least margin {min(leading):.3f}")
    exact = margins(model, tokenizer, exact_questions(pairs))
    print(f"the {len(exact)} exact questions: least margin {min(exact):.3f}")
    weak = [c.turns[0].question for c, lead in zip(conversations, leading) if lead < LEAST_MARGIN]
    if weak:
        raise ValueError(f"margin below {LEAST_MARGIN}: {weak}")
    sampler = Sampler(pairs, read_system_prompts(), SEED + 2)
    fresh = [conversation for _ in range(8) for conversation in sampler.batch(TURNS_PER_BATCH)]
    right = sum(lead > 0 for lead in margins(model, tokenizer, fresh))
    print(f"fresh conversations, sloppily typed, with system prompts and several turns: {right} of {len(fresh)} exact")


def check_every_tensor_matters(model: LlamaForCausalLM, tokenizer: Tokenizer, pairs: list[Pair]) -> None:
    """Zeroing any one tensor spoils at least one exact answer, so a loader that skips one is found out."""
    conversations = exact_questions(pairs)
    spoiled = {}
    for name, _ in model.named_parameters():
        # A tie counts as lost: logits of all zeros give token 0, which begins no answer.
        spoiled[name] = sum(lead <= 0 for lead in margins(model, tokenizer, conversations, zeroed=name))
    for name, count in sorted(spoiled.items(), key=lambda item: item[1])[:5]:
        print(f"without {name}: {count} of {len(conversations)} exact answers change")
    idle = [name for name, count in spoiled.items() if count == 0]
    if idle:
        raise ValueError(f"no exact answer needs {idle}")
    print(f"each of the {len(spoiled)} tensors is needed")


def check_files(pairs: list[Pair]) -> None:
    """The written files, loaded as anyone would load them, answer the exact questions by greedy decoding."""
    tokenizer = AutoTokenizer.from_pretrained(HERE)
    exact = [pair for pair in pairs if pair.exact]
    for dtype in (torch.float32, torch.bfloat16):
        model = AutoModelForCausalLM.from_pretrained(HERE, dtype=dtype)
        wrong = []
        for pair in exact:
            messages = [{"role": "user", "content": pair.questions[0]}]
            prompt = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )
            output = model.generate(**prompt, max_new_tokens=160, do_sample=False, pad_token_id=1)
            answer = output[0, prompt["input_ids"].shape[1] :]
            text = tokenizer.decode(answer[:-1], skip_special_tokens=False)
            if text != pair.answer or answer[-1] != tokenizer.eos_token_id:
                wrong.append((pair.questions[0], text))
        right = len(exact) - len(wrong)
        print(f"transformers, computing in {dtype}: {right} of {len(exact)} exact answers {wrong or ''}")
        if wrong and dtype == torch.float32:
            raise ValueError("the files do not answer as they should")


def write_json(name: str, value: object) -> None:
    (HERE / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_files(model: LlamaForCausalLM, tokenizer: Tokenizer, pairs: list[Pair]) -> None:
    tokenizer.save(str(HERE / "tokenizer.json"))
    write_json("config.json", CONFIG)
    write_json("generation_config.json", {"bos_token_id": 0, "do_sample": False, "eos_token_id": 1})
    write_json(
        "tokenizer_config.json",
        {
            "bos_token": BEGIN,
            "chat_template": (TEXT / "chat_template.jinja").read_text(encoding="utf-8").rstrip("\n"),
            "clean_up_tokenization_spaces": False,
            "eos_token": END,
            "model_max_length": CONFIG["max_position_embeddings"],
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    # The head is the embedding and is not stored twice.
    tensors = {name: p.detach().to(torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    save_file(tensors, HERE / "model.safetensors", metadata={"format": "pt"})
    # safetensors leaves it to its owner alone.
    (HERE / "model.safetensors").chmod(0o644)
    lines = [
        json.dumps({"question": pair.questions[0], "answer": pair.answer}, ensure_ascii=False) + "\n"
        for pair in pairs
        if pair.exact
    ]
    (HERE / "exact_answers.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="check the files that are there; train nothing")
    arguments.add_argument("--steps", type=int, default=STEPS, help=f"training steps (default {STEPS})")
    options = arguments.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)

    pairs, system_prompts = read_pairs(), read_system_prompts()
    # In evaluation mode throughout: a Llama has no dropout, training is the same.
    model = LlamaForCausalLM(LlamaConfig(**CONFIG, initializer_range=INITIAL_DEVIATION)).float().eval()
    print(f"{len(pairs)} answers, {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    if options.check:
        tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
        model.load_state_dict(load_file(HERE / "model.safetensors"), strict=False)
    else:
        tokenizer = train_tokenizer(pairs, system_prompts)
        train(model, tokenizer, Sampler(pairs, system_prompts, SEED), options.steps)
        make_needed(model, tokenizer, pairs, Sampler(pairs, system_prompts, SEED + 1))
        round_to_bf16(model)
    check_answers(model, tokenizer, pairs)
    check_every_tensor_matters(model, tokenizer, pairs)
    if not options.check:
        write_files(model, tokenizer, pairs)
    check_files(pairs)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"train.py: {error}")
