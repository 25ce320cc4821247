"""Chat templates of the common families and a tiny tokenizer for each, so that no test downloads a model.

Only what a template *renders* is the family's; the Jinja text is our own. What each does that the others do not:

    chatml        puts a default system prompt in front when there is none
    qwen3         has no default; keeps the reasoning of the last turn only, and gives even an empty one a think block
    llama3        trims every message; its turns end with <|eot_id|>, which is also the eos token
    gemma         refuses a system message; its turns end with <end_of_turn>, which is not the eos token
    gemma3        reads a system message into the first question
    llama2        has no generation prompt; the answer is framed by spaces, each exchange by bos and eos
    mistral_bare  has no generation prompt, nothing around the answer but the eos token; refuses a system message
"""

from dataclasses import dataclass, replace

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = """
{%- if not messages or messages[0].role != "system" %}
    {{- "<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n" }}
{%- endif %}
{%- for turn in messages %}
    {{- "<|im_start|>" ~ turn.role ~ "\\n" ~ turn.content ~ "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\\n" }}
{%- endif %}
"""

# A think block is written after the last question only: for the final message always, for one before it if it reasons.
QWEN3 = """
{%- set last = namespace(question=messages | length - 1) %}
{%- for turn in messages %}
    {%- if turn.role == "user" %}
        {%- set last.question = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for turn in messages %}
    {{- "<|im_start|>" ~ turn.role ~ "\\n" }}
    {%- if turn.role == "assistant" %}
        {%- set before, mark, after = turn.content.rpartition("</think>") %}
        {%- set answer = after.lstrip("\\n") if mark else after %}
        {%- set reasoning = before.split("</think>")[0].split("<think>")[-1].strip("\\n") %}
        {%- if loop.index0 > last.question and (loop.last or reasoning) %}
            {{- "<think>\\n" ~ reasoning ~ "\\n</think>\\n\\n" ~ answer.lstrip("\\n") }}
        {%- else %}
            {{- answer }}
        {%- endif %}
    {%- else %}
        {{- turn.content }}
    {%- endif %}
    {{- "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\\n" }}
    {%- if not enable_thinking | default(true) %}
        {{- "<think>\\n\\n</think>\\n\\n" }}
    {%- endif %}
{%- endif %}
"""

LLAMA3 = """
{{- bos_token }}
{%- for turn in messages %}
    {{- "<|start_header_id|>" ~ turn.role ~ "<|end_header_id|>\\n\\n" ~ turn.content | trim ~ "<|eot_id|>" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}
{%- endif %}
"""

ALTERNATE = """
{%- for turn in turns %}
    {%- if turn.role != ("assistant" if loop.index0 % 2 else "user") %}
        {{- raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
{%- endfor %}
"""

GEMMA_TURNS = (
    ALTERNATE
    + """
{{- bos_token }}
{%- for turn in turns %}
    {{- "<start_of_turn>" ~ ("model" if turn.role == "assistant" else turn.role) ~ "\\n" }}
    {{- (system if loop.first else "") ~ turn.content | trim ~ "<end_of_turn>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<start_of_turn>model\\n" }}
{%- endif %}
"""
)

GEMMA = (
    """
{%- if messages[0].role == "system" %}
    {{- raise_exception("System role not supported") }}
{%- endif %}
{%- set turns, system = messages, "" %}
"""
    + GEMMA_TURNS
)

GEMMA3 = (
    """
{%- if messages[0].role == "system" %}
    {%- set turns, system = messages[1:], messages[0].content ~ "\\n\\n" %}
{%- else %}
    {%- set turns, system = messages, "" %}
{%- endif %}
"""
    + GEMMA_TURNS
)

LLAMA2 = (
    """
{%- if messages[0].role == "system" %}
    {%- set turns, system = messages[1:], "<<SYS>>\\n" ~ messages[0].content ~ "\\n<</SYS>>\\n\\n" %}
{%- else %}
    {%- set turns, system = messages, "" %}
{%- endif %}
"""
    + ALTERNATE
    + """
{%- for turn in turns %}
    {%- if turn.role == "user" %}
        {{- bos_token ~ "[INST] " ~ ((system if loop.first else "") ~ turn.content) | trim ~ " [/INST]" }}
    {%- else %}
        {{- " " ~ turn.content | trim ~ " " ~ eos_token }}
    {%- endif %}
{%- endfor %}
"""
)

MISTRAL_BARE = (
    "{%- set turns = messages %}"
    + ALTERNATE
    + """
{{- bos_token }}
{%- for turn in turns %}
    {{- "[INST] " ~ turn.content ~ " [/INST]" if turn.role == "user" else turn.content ~ eos_token }}
{%- endfor %}
"""
)

SHAPES: dict[str, str] = {
    "chatml": CHATML,
    "qwen3": QWEN3,
    "llama3": LLAMA3,
    "gemma": GEMMA,
    "gemma3": GEMMA3,
    "llama2": LLAMA2,
    "mistral_bare": MISTRAL_BARE,
}


@dataclass(frozen=True)
class Tokens:
    """A family's added tokens. A family with a bos has a tokenizer that writes it in front of any text."""

    eos: str
    bos: str | None = None
    pad: str | None = None
    unk: str | None = None
    others: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()  # added tokens that are not special: decoding never skips them


CHATML_TOKENS = Tokens("<|im_end|>", pad="<|endoftext|>", others=("<|im_start|>",))
GEMMA_TOKENS = Tokens("<eos>", "<bos>", "<pad>", "<unk>", ("<start_of_turn>", "<end_of_turn>"))
LLAMA3_OTHERS = ("<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>")
TOKENS = {
    "chatml": CHATML_TOKENS,
    "qwen3": replace(CHATML_TOKENS, plain=("<think>", "</think>")),
    "llama3": Tokens("<|eot_id|>", "<|begin_of_text|>", others=LLAMA3_OTHERS),
    "gemma": GEMMA_TOKENS,
    "gemma3": GEMMA_TOKENS,
    "llama2": Tokens("</s>", "<s>", unk="<unk>"),
    "mistral_bare": Tokens("</s>", "<s>", unk="<unk>"),
}

# As in the real ones, line ends stay together and stick to the punctuation before them: the blank line of a frame is
# one token, and an answer that begins with a line end shares a token with its frame.
PIECES = Regex(r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+\n*|\s*\n+|\s+")
SENTENCES = [
    "偏头痛有哪些症状？恶心、呕吐、畏光。",
    "你是一名医生。\n问题：资料：回答：\n\n",
    "You are a helpful assistant\n\nuser\n\n\nsystem\nmodel\n",
    "[INST] <<SYS>>\n<</SYS>>\n\n [/INST]",
]


def make_chat_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer of the family `name`, one of SHAPES: byte-level, trained here, with its tokens and template."""
    tokens = TOKENS[name]
    named = [token for token in (tokens.unk, tokens.bos, tokens.eos, tokens.pad) if token]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(PIECES, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*named, *tokens.others], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(SENTENCES * 3, trainer)
    inner.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens.plain])
    if tokens.bos:
        inner.post_processor = processors.TemplateProcessing(
            single=f"{tokens.bos} $A", pair=None, special_tokens=[(tokens.bos, inner.token_to_id(tokens.bos))]
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=tokens.bos,
        eos_token=tokens.eos,
        pad_token=tokens.pad,
        unk_token=tokens.unk,
    )
    tokenizer.chat_template = SHAPES[name]
    return tokenizer
