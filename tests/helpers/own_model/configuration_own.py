from transformers import PretrainedConfig


class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(
        self, vocab_size=300, hidden_size=32, num_heads=4, output="tuple", alibi=False, tables=False, **kwargs
    ):
        self.vocab_size, self.hidden_size, self.num_heads = vocab_size, hidden_size, num_heads
        self.output, self.alibi, self.tables = output, alibi, tables
        super().__init__(**kwargs)
