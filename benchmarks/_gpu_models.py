"""Models and texts for the benchmark of a GPU: real where they are at hand, else of the same size."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import MPNetConfig, MPNetForSequenceClassification, PreTrainedTokenizerFast

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_WORDS = 38
"""Mean words of a text of ag_news."""


def agnews_texts(folder: Path, count: int) -> tuple[list[str], str]:
    """Texts of ag_news, or made-up ones of about the same lengths; and which of the two."""
    path = folder / "train.parquet"
    if path.is_file():
        import pyarrow.parquet as pq  # noqa: PLC0415  (a GPU machine may lack it)

        texts: list[str] = pq.read_table(path, columns=["text"])["text"].to_pylist()
        return texts[:count], f"{min(count, len(texts))} texts of ag_news"
    source = random.Random(1)
    words = ["".join(source.choices("etaoinshrdlu", k=source.randint(2, 7))) for _ in range(4_000)]
    made = [" ".join(source.choices(words, k=max(5, int(source.gauss(_WORDS, 11))))) for _ in range(count)]
    return made, f"{count} made-up texts of random words, about as long as those of ag_news"


def model_folder(out: Path, texts: Sequence[str], weights: Path | None, *, tiny: bool) -> tuple[Path, str]:
    """A classifier folder of the shape of all-mpnet-base-v2, and where its weights are from."""
    if weights is not None:
        return _with_head(out / "gpu-mpnet", weights), f"all-mpnet-base-v2 from {weights}, heads random"
    folder = out / ("gpu-mpnet-tiny" if tiny else "gpu-mpnet-random")
    tokenizer = _tokenizer(texts)
    torch.manual_seed(1)
    config = MPNetConfig(vocab_size=30_527, max_position_embeddings=514, **(TINY if tiny else {}))
    MPNetForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, "random, of the architecture of all-mpnet-base-v2" + (" made tiny" if tiny else "")


def _with_head(folder: Path, weights: Path) -> Path:
    torch.manual_seed(1)
    model = MPNetForSequenceClassification.from_pretrained(weights, num_labels=2)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(weights).save_pretrained(folder)
    return folder


def _tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """WordPiece as MPNet's, trained on the texts themselves."""
    trained = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    trained.normalizer = normalizers.BertNormalizer(lowercase=True)
    trained.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"]
    trainer = trainers.WordPieceTrainer(vocab_size=30_000, special_tokens=special, show_progress=False)
    trained.train_from_iterator(texts, trainer)
    ends = [(token, trained.token_to_id(token)) for token in ("<s>", "</s>")]
    trained.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=trained,
        model_max_length=512,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="[UNK]",
        mask_token="<mask>",
    )
