"""Tiny models of real architectures, made from a config, with random weights and a trained tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from .versions import TRANSFORMERS, is_older

TEXT = [
    "The quick brown fox jumps over the lazy dog.",
    "Pack my box with five dozen liquor jugs, 1234567890!",
    "Привет, мир! こんにちは世界。 你好，世界。 مرحبا بالعالم",
    "Embeddings of documents are vectors; near ones mean alike things.",
    "def main():\n    print('hello')\n",
]
_COMMON = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "initializer_range": 0.5,
}  # fmt: skip
_DECODER = {**_COMMON, "num_key_value_heads": 2, "max_position_embeddings": 128}
_T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 1}
_YARN = {"rope_type": "yarn", "rope_theta": 1e6, "factor": 4.0, "original_max_position_embeddings": 32,
         "max_position_embeddings": 128, "mscale": 1.0, "mscale_all_dim": 1.0,
         "llama_4_scaling_beta": 0.1}  # fmt: skip
_GEMMA2 = {**_DECODER, "head_dim": 8, "sliding_window": 16, "hidden_size_per_layer_input": 8, "embedding_dim": 32,
           "layer_types": ["sliding_attention", "full_attention"],
           "per_layer_config": {"1": {"head_dim": 16, "num_key_value_heads": 1}}}  # fmt: skip
# kind -> (config class, its arguments, style of its tokenizer): those that go through the whole grid of heads
KINDS = {
    "bert": ("BertConfig", {**_COMMON, "max_position_embeddings": 64}, "wordpiece"),
    "roberta": ("RobertaConfig", {**_COMMON, "max_position_embeddings": 66, "pad_token_id": 1}, "bytes"),
    "xlm-roberta": ("XLMRobertaConfig", {**_COMMON, "max_position_embeddings": 66}, "unigram"),
    "mpnet": ("MPNetConfig", {**_COMMON, "max_position_embeddings": 66}, "bytes"),
    "modernbert": (
        "ModernBertConfig",
        {**_COMMON, "max_position_embeddings": 64, "local_attention": 16, "global_attn_every_n_layers": 2},
        "bytes",
    ),
    "t5": ("T5Config", _T5, "t5"),
    "qwen3": ("Qwen3Config", {**_DECODER, "head_dim": 8, "pad_token_id": 1}, "decoder"),
}
# More architectures of embedding models; windows are shorter than the texts, so that they matter.
MORE = {
    "distilbert": (
        "DistilBertConfig",
        {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "max_position_embeddings": 64,
         "initializer_range": 0.5},
        "wordpiece",
    ),
    "albert": ("AlbertConfig", {**_COMMON, "embedding_size": 16, "max_position_embeddings": 64}, "unigram"),
    "electra": ("ElectraConfig", {**_COMMON, "embedding_size": 16, "max_position_embeddings": 64}, "wordpiece"),
    "deberta-v2": (
        "DebertaV2Config",
        {**_COMMON, "max_position_embeddings": 64, "relative_attention": True, "pos_att_type": ["c2p", "p2c"],
         "position_buckets": 16, "share_att_key": True, "position_biased_input": False, "type_vocab_size": 0},
        "unigram",
    ),
    "camembert": ("CamembertConfig", {**_COMMON, "max_position_embeddings": 66}, "unigram"),
    "nomic_bert": ("NomicBertConfig", {**_COMMON, "max_position_embeddings": 64}, "wordpiece"),
    "gte": ("GteConfig", {**_COMMON, "max_position_embeddings": 64}, "wordpiece"),
    "eurobert": ("EuroBertConfig", {**_DECODER, "pad_token_id": 1}, "bytes"),
    "longt5": ("LongT5Config", {**_T5, "local_radius": 7}, "t5"),
    "t5 gated": ("T5Config", {**_T5, "feed_forward_proj": "gated-gelu"}, "t5"),
    "mistral": ("MistralConfig", {**_DECODER, "head_dim": 8, "sliding_window": 8}, "decoder"),
    "llama": ("LlamaConfig", _DECODER, "decoder"),
    "llama bidirectional": ("LlamaConfig", {**_DECODER, "is_causal": False}, "decoder"),
    "qwen2": (
        "Qwen2Config",
        {**_DECODER, "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
        "decoder",
    ),
    "qwen2 bidirectional": (
        "Qwen2Config",
        {**_DECODER, "is_causal": False, "use_sliding_window": True, "sliding_window": 16,
         "max_window_layers": 0},
        "decoder",
    ),
    "gemma2": ("Gemma2Config", {**_DECODER, "head_dim": 8, "sliding_window": 8}, "decoder"),
    "gemma3": (
        "Gemma3TextConfig",
        {**_DECODER, "head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
        "decoder",
    ),
    "embeddinggemma": (
        "Gemma3TextConfig",
        {**_DECODER, "head_dim": 8, "sliding_window": 16, "use_bidirectional_attention": True,
         "layer_types": ["sliding_attention", "full_attention"]},
        "decoder",
    ),
    "phi3": ("Phi3Config", {**_DECODER, "sliding_window": 8}, "decoder"),
    "gpt2": (
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.5},
        "decoder",
    ),
    "gpt_neox": ("GPTNeoXConfig", {**_COMMON, "max_position_embeddings": 64}, "decoder"),
    "opt": (
        "OPTConfig",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 64,
         "word_embed_proj_dim": 32, "max_position_embeddings": 64, "init_std": 0.5},
        "decoder",
    ),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.5}, "decoder"),
    "ministral3": ("Ministral3Config", {**_DECODER, "head_dim": 8, "rope_parameters": _YARN}, "decoder"),
    "ministral3 bidirectional": (
        "Ministral3Config",
        {**_DECODER, "head_dim": 8, "rope_parameters": _YARN, "is_causal": False},
        "decoder",
    ),
    "jina_embeddings_v3": (
        "JinaEmbeddingsV3Config", {**_COMMON, "max_position_embeddings": 66, "pad_token_id": 1}, "unigram"
    ),
    "embeddinggemma2": ("EmbeddingGemma2TextConfig", _GEMMA2, "decoder"),
    "qwen3_5": (
        "Qwen3_5TextConfig",
        {**_DECODER, "head_dim": 8, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
         "linear_num_key_heads": 2, "linear_num_value_heads": 4,
         "layer_types": ["linear_attention", "full_attention"]},
        "decoder",
    ),
    "lfm2": ("Lfm2Config", {**_DECODER, "layer_types": ["conv", "full_attention"]}, "decoder"),
    "granite": ("GraniteConfig", {**_DECODER, "attention_multiplier": 0.3, "residual_multiplier": 0.5,
                                  "embedding_multiplier": 2.0}, "decoder"),
    "ernie": ("ErnieConfig", {**_COMMON, "max_position_embeddings": 64}, "wordpiece"),
    "longformer": (
        "LongformerConfig",
        {**_COMMON, "max_position_embeddings": 66, "pad_token_id": 1, "attention_window": 8},
        "bytes",
    ),
    "modernbert-decoder": (
        "ModernBertDecoderConfig",
        {**_COMMON, "max_position_embeddings": 64, "local_attention": 16, "bos_token_id": 0,
         "layer_types": ["sliding_attention", "full_attention"]},
        "decoder",
    ),
    "mamba2": (
        "Mamba2Config",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1,
         "chunk_size": 8, "initializer_range": 0.5},
        "decoder",
    ),
}  # fmt: skip
_SPECIAL = {
    "wordpiece": {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    "bytes": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
    "unigram": {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"},
    "t5": {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
    "decoder": {"eos": "<|end|>", "pad": "<|pad|>", "unk": "<|unk|>"},
}
_FRAME = {"wordpiece": "[CLS] $A [SEP]", "bytes": "<s> $A </s>", "decoder": "$A <|end|>",
          "unigram": "<s> $A </s>", "t5": "$A </s>"}  # fmt: skip


def make_tokenizer(style: str) -> transformers.PreTrainedTokenizerFast:
    special = _SPECIAL[style]
    names = list(special.values())
    if style == "wordpiece":
        tok = Tokenizer(models.WordPiece(unk_token=special["unk"]))
        tok.normalizer = normalizers.BertNormalizer(lowercase=True)
        tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=names, show_progress=False)
    elif style in ("unigram", "t5"):
        tok = Tokenizer(models.Unigram())
        tok.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
        tok.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=names, unk_token=special["unk"], show_progress=False
        )
    else:
        tok = Tokenizer(models.BPE())
        tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=names, initial_alphabet=alphabet, show_progress=False
        )
    tok.train_from_iterator(TEXT * 20, trainer)
    tok.post_processor = processors.TemplateProcessing(
        single=_FRAME[style], special_tokens=[(name, tok.token_to_id(name)) for name in names]
    )
    tokens = {f"{name}_token": token for name, token in special.items()}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tok, model_max_length=64, padding_side="left" if style == "decoder" else "right",
        **tokens,
    )  # fmt: skip


def make_tiny(kind: str, path: Path) -> Path:
    """A model directory without sentence-transformers' files: config, safetensors, tokenizer."""
    name, arguments, style = (KINDS | MORE)[kind]
    tokenizer = make_tokenizer(style)
    if not hasattr(transformers, name) and is_older("transformers", TRANSFORMERS):
        pytest.skip(f"transformers {transformers.__version__} has no {name}")
    config = getattr(transformers, name)(
        **{
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            **arguments,
        },
        vocab_size=len(tokenizer),
    )
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config, trust_remote_code=False).eval().save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
