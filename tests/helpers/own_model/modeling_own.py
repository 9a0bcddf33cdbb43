import torch
from torch import nn
from transformers import BertModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_own import OwnConfig


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, self.heads = config.hidden_size, config.num_heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x, bias):
        rows, length, width = x.shape
        q, k, v = (part.view(rows, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        weights = (q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5 + bias).softmax(-1)
        return self.norm(x + self.out((weights @ v).transpose(1, 2).reshape(rows, length, width)))


class OwnModel(PreTrainedModel):
    """A small encoder with attention of its own, in the style of transformers 4."""

    config_class = OwnConfig
    base_model_prefix = "own"
    _tied_weights_keys = ["lm_head.weight"]  # noqa: RUF012 - a list, as in older code

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        if not config.alibi:
            self.position_embeddings = nn.Embedding(64, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(2))
        if config.tables:  # as rotary positions are: computed, and not saved
            self.register_buffer("frequencies", 1 / (1 + torch.arange(config.hidden_size)), persistent=False)
            self.offset = torch.ones(1)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask, **kwargs):
        x, positions = self.words(input_ids), torch.arange(input_ids.shape[1], device=input_ids.device)
        mask = attention_mask.to(x.dtype)
        if self.config.tables:
            angles = positions[:, None] * self.frequencies + self.offset
            x = x + angles.sin().to(x.dtype)
        bias = (1 - mask[:, None, None]) * torch.finfo(x.dtype).min
        if self.config.alibi:
            slopes = 0.5 ** torch.arange(1, self.config.num_heads + 1, device=x.device)
            bias = bias - (slopes[:, None, None] * (positions[None] - positions[:, None]).abs()).to(x.dtype)
        else:
            x = x + self.position_embeddings(positions)
        for layer in self.layers:
            x = layer(x, bias)
        pooled = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return {
            "tuple": (x, pooled),
            "dict": {"pooled": pooled, "last_hidden_state": x},
            "tensor": x,
            "vectors": {"sentence_embeddings": pooled},
            "pooled": (pooled,),
            "output": BaseModelOutputWithPooling(last_hidden_state=x, pooler_output=pooled),
        }[self.config.output]


class OwnBert(BertModel):
    """BERT with another result, so that tests see whether this class or transformers' own has run."""

    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out["last_hidden_state"] = out["last_hidden_state"].flip(-1)
        return out
