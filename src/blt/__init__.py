"""The Byte Latent Transformer: language models that read raw bytes, with no tokenizer."""

__version__ = "0.1.0"
