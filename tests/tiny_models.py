"""Real but tiny classifiers and encoders (2 layers, mostly 32 wide), as Hugging Face folders in milliseconds.

The weights are random but not small, so that teachers disagree and dropout moves their answers.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

TEXTS = (
    "book a flight to paris",
    "what is my account balance",
    "how long do i boil eggs",
    "transfer money to my savings account",
    "cancel the hotel in rome",
    "is there salt in this soup recipe",
    "my card was declined",
    "do i need a visa for japan",
    "the bread is too dry",
    "hello",
    "pay the bill for electricity now please and tell me when it is done",
    "which gate does the plane leave from",
)
"""A dozen texts of different lengths."""

_SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
_CONFIGS: dict[str, Callable[..., PretrainedConfig]] = {
    "bert": lambda **own: transformers.BertConfig(**_SHAPE, **own),
    "roberta": lambda **own: transformers.RobertaConfig(**_SHAPE, **own),
    "xlm-roberta": lambda **own: transformers.XLMRobertaConfig(**_SHAPE, **own),
    "mpnet": lambda **own: transformers.MPNetConfig(**_SHAPE, **own),
    "electra": lambda **own: transformers.ElectraConfig(embedding_size=16, **_SHAPE, **own),
    "albert": lambda **own: transformers.AlbertConfig(
        embedding_size=16, classifier_dropout_prob=0.1, hidden_dropout_prob=0.1, **_SHAPE, **own
    ),
    "deberta-v2": lambda **own: transformers.DebertaV2Config(
        relative_attention=True, pos_att_type=["p2c", "c2p"], **_SHAPE, **own
    ),
    "modernbert": lambda **own: transformers.ModernBertConfig(
        cls_token_id=own.get("bos_token_id"),
        sep_token_id=own.get("eos_token_id"),
        embedding_dropout=0.1,
        mlp_dropout=0.1,
        classifier_dropout=0.1,
        **_SHAPE,
        **own,
    ),
    "distilbert": lambda **own: transformers.DistilBertConfig(
        dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=64, initializer_range=0.3, **own
    ),
}
_CLASSES = {
    "bert": "Bert",
    "roberta": "Roberta",
    "xlm-roberta": "XLMRoberta",
    "mpnet": "MPNet",
    "electra": "Electra",
    "albert": "Albert",
    "deberta-v2": "DebertaV2",
    "modernbert": "ModernBert",
    "distilbert": "DistilBert",
}
ARCHITECTURES = tuple(_CLASSES)
_BPE = ("roberta", "modernbert")
_UNIGRAM = ("albert", "xlm-roberta", "deberta-v2")


def make_teacher(
    folder: Path,
    labels: Sequence[str],
    architecture: str = "bert",
    seed: int = 0,
    *,
    dropout: bool = True,
    texts: Sequence[str] = TEXTS,
    width: int = 32,
) -> Path:
    """Save a random classifier over `labels` with its tokenizer; answers the folder."""
    names = dict(enumerate(labels))
    own: dict[str, Any] = {"id2label": names, "label2id": {name: index for index, name in names.items()}}
    own |= {"hidden_size": width} if width != 32 else {}
    return _save(folder, architecture, "ForSequenceClassification", seed, own, dropout=dropout, texts=texts)


def make_encoder(
    folder: Path, architecture: str = "bert", seed: int = 0, *, layers: int = 2, texts: Sequence[str] = TEXTS
) -> Path:
    """Save a random encoder without a head (BertModel, ...) with its tokenizer; answers the folder."""
    own = {"num_hidden_layers": layers} if layers != 2 else {}
    return _save(folder, architecture, "Model", seed, own, dropout=True, texts=texts)


def make_tokenizer(kind: str = "wordpiece", texts: Sequence[str] = TEXTS) -> PreTrainedTokenizerFast:
    """A tokenizer for the texts: `wordpiece`, `bpe` or `unigram`, with [CLS] text [SEP]."""
    tokenizer = _MODELS[kind](texts)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=ends
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def _words(texts: Sequence[str]) -> list[str]:
    return sorted({word for text in texts for word in text.lower().split()})


def _wordpiece(texts: Sequence[str]) -> Tokenizer:
    letters = sorted({letter for word in _words(texts) for letter in word})
    pieces = dict.fromkeys([*_SPECIAL, *_words(texts), *letters, *(f"##{letter}" for letter in letters)])
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def _bpe(texts: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _unigram(texts: Sequence[str]) -> Tokenizer:
    """Not trained: the trainer's vocabulary changes from run to run."""
    letters = sorted({letter for word in _words(texts) for letter in word})
    pieces = [f"\u2581{word}" for word in _words(texts)]
    scores = [(piece, -3.0) for piece in pieces] + [(letter, -6.0) for letter in ["\u2581", *letters]]
    tokenizer = Tokenizer(models.Unigram([(token, 0.0) for token in _SPECIAL] + scores, unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_MODELS = {"wordpiece": _wordpiece, "bpe": _bpe, "unigram": _unigram}


def _save(
    folder: Path,
    architecture: str,
    kind: str,
    seed: int,
    own: dict[str, Any],
    *,
    dropout: bool,
    texts: Sequence[str],
) -> Path:
    tokenizer = make_tokenizer(
        "bpe" if architecture in _BPE else "unigram" if architecture in _UNIGRAM else "wordpiece", texts
    )
    config = _config(architecture, tokenizer, own)
    if not dropout:
        _switch_dropout_off(config)
    model_class = getattr(transformers, f"{_CLASSES[architecture]}{kind}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = model_class(config)
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    if bars:
        transformers.utils.logging.enable_progress_bar()
    tokenizer.save_pretrained(folder)
    return folder


def _config(architecture: str, tokenizer: PreTrainedTokenizerFast, own: dict[str, Any]) -> PretrainedConfig:
    config = _CONFIGS[architecture](
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
    )
    for name, value in own.items():
        setattr(config, name, value)
    return config


def _switch_dropout_off(config: PretrainedConfig) -> None:
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
