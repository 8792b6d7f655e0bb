"""Makes the checkpoints and the expected values that the engine's tests compare with.

    python make.py              makes everything again; the same versions on the same kind of CPU give the same bytes
    python make.py tiny-qwen2   makes only what is named

Everything expected comes from Hugging Face transformers computing in float32, so an error has to be made twice,
independently, to go unnoticed. README.md says what is in the files.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache, PreTrainedModel

HERE = Path(__file__).parent
DEMO = HERE.parents[2] / "examples" / "models" / "ask-sparkherd"
SEED = 3
GREEDY_TOKENS = 64
# Lead of every greedy token over the runner-up, in logits. Another order of float32 additions moves a logit far less
# (`noise` in the files measures it), so a right engine chooses the same tokens.
LEAST_MARGIN = 0.1
# Most that a float64 computation may differ from the float32 one: a fifth of the margin. With rounded keys and values
# it is one BF16 step wherever the two round apart, so it is far above float32's own.
MOST_NOISE = LEAST_MARGIN / 5
# About one random prompt in twenty has such margins 64 times in a row.
MOST_DRAWS = 1000
# Different tokens among those: a model that only repeats itself tests little.
LEAST_VARIETY = 16
# 1 has nothing to attend to; 17 and 70 end inside the second and the fifth KV block of 16.
PROMPT_LENGTHS = (1, 17, 70)
SPECIAL_TOKENS = ("<|begin|>", "<|end|>")


@dataclass(frozen=True)
class Tiny:
    """A seeded checkpoint. Sizes are odd on purpose: no width is a multiple of a vector or a tile, and none equals
    another, so that what mixes them up fails."""

    name: str
    dtype: torch.dtype
    config: dict
    # Renamed or left out in config.json, as files in the wild do.
    written: dict = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    shards: int = 1
    family: str = "llama"
    # What a tied head's last norm scales by; too few single-token prompts have the margins where logits spread less.
    tied_gain: float = 5.0

    def model(self, **changes) -> PreTrainedModel:
        config = AutoConfig.for_model(self.family, **(self.config | changes))
        return AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()


LLAMA3_ROPE = {
    "factor": 4.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    # Wavelengths here are 6, 20, 63, 199, … tokens: the first is kept, two are mixed, the rest divided.
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}
COMMON = {"attention_bias": False, "bos_token_id": 0, "eos_token_id": 1, "hidden_act": "silu", "mlp_bias": False}
# Of six pairs with 64 tokens: the first makes 10 turns and is kept, the last two none and are divided, three are mixed.
YARN_ROPE = {"beta_fast": 8, "beta_slow": 0.25, "factor": 4.0, "original_max_position_embeddings": 64, "type": "yarn"}
# The window is there and switched off, as in every published Qwen.
COMMON_QWEN = {
    "bos_token_id": 0,
    "eos_token_id": 1,
    "hidden_act": "silu",
    "max_window_layers": 1,
    "sliding_window": 32,
    "use_sliding_window": False,
}
TINY = (
    Tiny(
        "tiny-llama3-bf16",
        torch.bfloat16,
        COMMON
        | dict(hidden_size=48, intermediate_size=112, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
        | dict(head_dim=16, vocab_size=323, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=False)
        | dict(rope_theta=10000.0, rope_scaling=LLAMA3_ROPE),
        written={"torch_dtype": "bfloat16"},
        shards=2,
    ),
    Tiny(
        "tiny-tied-f16",
        torch.float16,
        COMMON
        | dict(hidden_size=32, intermediate_size=72, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1)
        | dict(head_dim=8, vocab_size=277, max_position_embeddings=192, rms_norm_eps=1e-6, tie_word_embeddings=True)
        | dict(rope_theta=10000.0),
        # The spelling of transformers 5.
        written={"dtype": "float16", "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}},
        left_out=("rope_theta",),
    ),
    Tiny(
        "tiny-untied-f32",
        torch.float32,
        COMMON
        | dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=3)
        | dict(head_dim=8, vocab_size=261, max_position_embeddings=192, rms_norm_eps=1e-5, tie_word_embeddings=False)
        | dict(rope_theta=500000.0),
        written={"torch_dtype": "float32"},
        # Llama 2 style: the head's width is hidden_size / num_attention_heads, every head has its own keys.
        left_out=("head_dim", "num_key_value_heads"),
    ),
    Tiny(
        "tiny-qwen2-bf16",
        torch.bfloat16,
        COMMON_QWEN
        | dict(hidden_size=40, intermediate_size=88, num_hidden_layers=2, num_attention_heads=6, num_key_value_heads=2)
        | dict(vocab_size=283, max_position_embeddings=64, rms_norm_eps=1e-6, tie_word_embeddings=False)
        | dict(head_dim=12, rope_theta=10000.0, rope_scaling=YARN_ROPE),
        written={"torch_dtype": "bfloat16"},
        family="qwen2",
    ),
    Tiny(
        "tiny-qwen3-bf16",
        torch.bfloat16,
        COMMON_QWEN
        | dict(hidden_size=36, intermediate_size=76, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
        | dict(head_dim=14, vocab_size=271, max_position_embeddings=192, rms_norm_eps=1e-6, tie_word_embeddings=True)
        | dict(attention_bias=False, rope_theta=1000000.0, rope_scaling=None),
        written={"torch_dtype": "bfloat16"},
        family="qwen3",
        tied_gain=15.0,
    ),
    Tiny(
        "tiny-mistral-f16",
        torch.float16,
        dict(bos_token_id=0, eos_token_id=1, hidden_act="silu", sliding_window=None)
        | dict(hidden_size=44, intermediate_size=84, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1)
        | dict(head_dim=10, vocab_size=267, max_position_embeddings=192, rms_norm_eps=1e-5, tie_word_embeddings=False)
        | dict(rope_theta=1000000.0),
        written={"torch_dtype": "float16"},
        family="mistral",
    ),
)
# How the engine may store keys and values; `f32` does not round them.
KV_ROUNDING = {"f32": None, "kv_bf16": torch.bfloat16, "kv_f16": torch.float16}
VARIANTS = {
    torch.bfloat16: ("f32", "kv_bf16"),
    torch.float16: ("f32", "kv_bf16", "kv_f16"),
    torch.float32: ("f32", "kv_bf16"),
}


class RoundingCache(DynamicCache):
    """A KV cache that stores keys (after rope) and values in a narrower type, as a paged pool does."""

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        computed = key_states.dtype
        keys, values = key_states.to(self.dtype).to(computed), value_states.to(self.dtype).to(computed)
        return super().update(keys, values, layer_idx, *args, **kwargs)


@torch.no_grad()
def logits_of(model: PreTrainedModel, tokens: list[int], variant: str) -> torch.Tensor:
    """[tokens, vocabulary]: row i is what follows tokens[..= i]."""
    rounding = KV_ROUNDING[variant]
    cache = None if rounding is None else RoundingCache(rounding)
    return model(
        input_ids=torch.tensor([tokens]), past_key_values=cache, use_cache=cache is not None
    ).logits[0]


def greedy(model: PreTrainedModel, prompt: list[int], end: int | None) -> list[int] | None:
    """`GREEDY_TOKENS` tokens, or up to and including `end`; None if a margin is too small. The context is computed anew
    for each token: nothing is cached."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + GREEDY_TOKENS and (len(tokens) == len(prompt) or tokens[-1] != end):
        leading = logits_of(model, tokens, "f32")[-1].topk(2)
        if leading.values[0] - leading.values[1] < LEAST_MARGIN:
            return None
        tokens.append(int(leading.indices[0]))
    return tokens[len(prompt) :]


def least_margin(logits: torch.Tensor, prompt_length: int, chosen: list[int]) -> float:
    """Smallest lead of a chosen token over the best other; negative if another one leads."""
    rows = logits[prompt_length - 1 : prompt_length - 1 + len(chosen)]
    index = torch.tensor(chosen).unsqueeze(-1)
    return float((rows.gather(-1, index) - rows.scatter(-1, index, -torch.inf).max(-1, keepdim=True).values).min())


def expect(model: PreTrainedModel, name: str, prompt: list[int], variants: tuple[str, ...], end: int | None):
    """One case: its JSON, and its tensors. None if a margin is too small or the noise too large."""
    chosen = greedy(model, prompt, end)
    if chosen is None:
        return None
    tokens = prompt + chosen[:-1]
    positions = sorted({0, len(prompt) - 1, len(prompt) + len(chosen) // 2 - 1, len(tokens) - 1})
    case = {"name": name, "prompt_tokens": prompt, "greedy_tokens": chosen, "logit_positions": positions}
    case["least_margin"], case["noise"] = {}, {}
    tensors = {}
    for variant in variants:
        logits = logits_of(model, tokens, variant)
        margin = least_margin(logits, len(prompt), chosen)
        if margin < LEAST_MARGIN:
            return None
        wide = logits_of(model.double(), tokens, variant)
        model.float()
        noise = float((wide - logits).abs().max())
        if noise > MOST_NOISE:
            return None
        case["least_margin"][variant] = round(margin, 4)
        case["noise"][variant] = float(f"{noise:.2g}")
        tensors[f"{name}.{variant}"] = logits[positions].contiguous()
    return case, tensors


def random_weights(model: PreTrainedModel, tiny: Tiny) -> None:
    """Weights that make every part count: unlike a default initialisation, attention is peaked (so positions matter),
    norms scale, and logits are spread over tens. Rounded to the stored type."""
    generator = torch.Generator().manual_seed(SEED)
    gains = {"q_proj": 1.5, "k_proj": 1.5, "lm_head": 8.0}
    tied = model.config.tie_word_embeddings
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                # With a tied head the last norm is what spreads the logits.
                gain = tiny.tied_gain if tied and name == "model.norm.weight" else 1.0
                value = (0.5 + torch.rand(parameter.shape, generator=generator)) * gain
            elif name.endswith("bias"):
                value = torch.randn(parameter.shape, generator=generator) * 0.7
            elif "embed_tokens" in name:
                # A tied embedding of the layers' size would make each token predict itself.
                value = torch.randn(parameter.shape, generator=generator) * (0.3 if tied else 1.0)
            else:
                gain = next((gain for part, gain in gains.items() if part in name), 1.0)
                value = torch.randn(parameter.shape, generator=generator) * gain / parameter.shape[1] ** 0.5
            parameter.copy_(value.to(tiny.dtype))


def tiny_expectations(tiny: Tiny, model: PreTrainedModel) -> tuple[list[dict], dict[str, torch.Tensor]]:
    """Per length the first drawn prompt whose margins are large enough in every variant, that never ends by itself and
    does not only repeat itself."""
    draw = torch.Generator().manual_seed(SEED)
    lowest = len(SPECIAL_TOKENS)
    cases, tensors = [], {}
    for length in PROMPT_LENGTHS:
        for _ in range(MOST_DRAWS):
            prompt = torch.randint(lowest, tiny.config["vocab_size"], (length,), generator=draw).tolist()
            made = expect(model, f"prompt_{length}", prompt, VARIANTS[tiny.dtype], end=None)
            chosen = made[0]["greedy_tokens"] if made is not None else [0]
            if min(chosen) >= lowest and len(set(chosen)) >= LEAST_VARIETY:
                break
        else:
            raise ValueError(f"{tiny.name}: no prompt of {length} tokens has a margin of {LEAST_MARGIN}")
        cases.append(made[0])
        tensors |= made[1]
    return cases, tensors


def byte_tokenizer(vocabulary: int) -> Tokenizer:
    """Special tokens, the 256 bytes, and as many merges as the vocabulary has room for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the herd of sparks answers the questions of the shepherds"] * 2, trainer)
    return tokenizer


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_shards(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    each = -(-len(names) // shards)
    files = {}
    for index in range(shards):
        file = f"model-{index + 1:05}-of-{shards:05}.safetensors"
        part = names[index * each : (index + 1) * each]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        files |= dict.fromkeys(part, file)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": files})


def write_checkpoint(tiny: Tiny, model: PreTrainedModel) -> None:
    folder = HERE / tiny.name
    folder.mkdir(exist_ok=True)
    config = {"architectures": [type(model).__name__], "model_type": tiny.family} | tiny.config | tiny.written
    for key in tiny.left_out:
        del config[key]
    write_json(folder / "config.json", dict(sorted(config.items())))
    write_json(folder / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 1})
    byte_tokenizer(tiny.config["vocab_size"]).save(str(folder / "tokenizer.json"))
    begin, end = SPECIAL_TOKENS
    names = {"bos_token": begin, "eos_token": end, "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", names)
    # A tied head is one parameter, named once.
    tensors = {name: p.detach().to(tiny.dtype).contiguous() for name, p in model.named_parameters()}
    write_shards(folder, tensors, tiny.shards)


def check_checkpoint(tiny: Tiny, cases: list[dict], tensors: dict[str, torch.Tensor]) -> None:
    """The files, read by transformers alone, give what was stored; and rope scaling is not idle."""
    loaded = AutoModelForCausalLM.from_pretrained(HERE / tiny.name, dtype=torch.float32, attn_implementation="eager")
    case = cases[-1]
    tokens = case["prompt_tokens"] + case["greedy_tokens"][:-1]
    again = logits_of(loaded, tokens, "f32")[case["logit_positions"]]
    if not torch.equal(again, tensors[f"{case['name']}.f32"]):
        raise ValueError(f"{tiny.name}: the files give other logits than the model they were written from")
    if tiny.config.get("rope_scaling") is not None:
        plain = tiny.model(rope_scaling=None)
        plain.load_state_dict(loaded.state_dict())
        moved = float((logits_of(plain, tokens, "f32")[case["logit_positions"]] - again).abs().max())
        print(f"{tiny.name}: without rope scaling a logit moves by {moved:.1f}")
        if moved < 1:
            raise ValueError(f"{tiny.name}: rope scaling changes nothing")


def write_expectations(name: str, checkpoint: str, cases: list[dict], tensors: dict[str, torch.Tensor]) -> None:
    write_json(HERE / f"{name}.json", {"checkpoint": checkpoint, "cases": cases})
    save_file(tensors, HERE / f"{name}.safetensors")
    for case in cases:
        tokens = len(case["greedy_tokens"])
        print(f"  {case['name']}: {tokens} tokens, margin {case['least_margin']}, noise {case['noise']}")


# Name, and the messages. The first two answers are longer than `GREEDY_TOKENS`; the others are run to their end.
DEMO_QUESTIONS = {
    "yaml": [{"role": "user", "content": "Show me a ModelDeployment."}],
    "steps": [{"role": "user", "content": "What happens after kubectl apply?"}],
    "degrees": [{"role": "user", "content": "How hot does the GPU of a Spark get?"}],
    "second_turn": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is a footprint?"},
        {"role": "assistant", "content": "The bytes one replica takes, by part."},
        {"role": "user", "content": "Which field of a deployment is required?"},
    ],
}


def demo_expectations() -> tuple[list[dict], dict[str, torch.Tensor]]:
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32, attn_implementation="eager")
    cases, tensors = [], {}
    for name, messages in DEMO_QUESTIONS.items():
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        made = expect(model, name, list(prompt), VARIANTS[torch.bfloat16], end=tokenizer.eos_token_id)
        if made is None:
            raise ValueError(f"ask-sparkherd: {name} has a margin below {LEAST_MARGIN} or noise above {MOST_NOISE}")
        case, rows = made
        cases.append(case | {"text": tokenizer.decode(case["greedy_tokens"], skip_special_tokens=True)})
        tensors |= rows
    return cases, tensors


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


CONVERSATIONS = {
    "user": [turn("user", "Hello")],
    "system_and_user": [turn("system", "Be brief."), turn("user", "What is sparkherd?")],
    "two_turns": [turn("user", "Hello"), turn("assistant", "Hello! Ask me something."), turn("user", "Who are you?")],
    "empty_content": [turn("system", ""), turn("user", "")],
    "only_system": [turn("system", "You are ask-sparkherd.")],
    "no_messages": [],
    "two_users_in_a_row": [turn("user", "One."), turn("user", "Two.")],
    "spaces_around": [turn("user", "  What is a surge? \n\n")],
    "lines_and_tabs": [turn("user", "first line\n\n  second\tline")],
    "not_ascii": [turn("user", "Wie heiß? 86 °C, 日本語, 🐑")],
    "looks_like_a_template": [turn("user", "{{ bos_token }} {% if x %} {# no #} <b>&amp;</b> 'single' \"double\"")],
    "unknown_role": [turn("tool", "42")],
}


def chat_template_expectations() -> list[dict]:
    """What transformers renders, or the error it raises."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    rendered = []
    for name, messages in CONVERSATIONS.items():
        for generation_prompt in (True, False):
            case = {"name": name, "messages": messages, "add_generation_prompt": generation_prompt}
            try:
                text = tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=generation_prompt
                )
                case |= {"text": text, "tokens": tokenizer.encode(text, add_special_tokens=False)}
            except Exception as error:  # jinja2's own class is no part of transformers' interface
                case["error"] = str(error)
            rendered.append(case)
    return rendered


def main() -> None:
    # The order of float additions, and so the last bits, depends on it.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    names = sys.argv[1:]
    for tiny in (tiny for tiny in TINY if not names or tiny.name in names):
        model = tiny.model()
        random_weights(model, tiny)
        cases, tensors = tiny_expectations(tiny, model)
        write_checkpoint(tiny, model)
        check_checkpoint(tiny, cases, tensors)
        write_expectations(tiny.name, f"engine/tests/goldens/{tiny.name}", cases, tensors)
    if names:
        return
    print("ask-sparkherd")
    write_expectations("ask-sparkherd", "examples/models/ask-sparkherd", *demo_expectations())
    write_json(HERE / "chat_template.json", chat_template_expectations())


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"make.py: {error}")
