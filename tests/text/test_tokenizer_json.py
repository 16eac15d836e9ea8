"""Is tokenizer.json read if it contains GPT-2's byte-level BPE, and refused otherwise?"""

import json
from dataclasses import replace

import pytest

from numpy_gpt import CheckpointError, GPTError, load, save
from numpy_gpt.text import bpe, tokenizer
from parity.inputs import TINY, random_model

TOKENIZER = bpe.tokenizer(bpe.train(["the cat and the hat and the bat"], 270))
MODEL = random_model(replace(TINY, n_vocab=270))
TEXT = "the cat <|endoftext|> it's é 👍"


def gpt2():
    """Return tokenizer.json as Hugging Face's repository gpt2 has it, with the vocabulary of TOKENIZER"""
    encoder, merges = TOKENIZER.files
    eot = {"id": TOKENIZER.eot, "special": True, "content": "<|endoftext|>", "normalized": True}
    model = {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": ""}
    model |= {"fuse_unk": False, "vocab": json.loads(encoder), "merges": merges.decode().splitlines()[1:]}
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    steps = {"normalizer": None, "pre_tokenizer": step, "post_processor": step, "decoder": step}
    return {"version": "1.0", "added_tokens": [eot], **steps, "model": {"type": "BPE", **model}}


def write(directory, keys):
    directory.mkdir(exist_ok=True)
    (directory / "tokenizer.json").write_text(json.dumps(keys))
    return tokenizer.load(directory)


def pairs(keys):
    """Write merges as newer versions do"""
    keys["model"]["merges"] = [line.split(" ") for line in keys["model"]["merges"]]


def endoftext_added(keys):
    """Leave <|endoftext|> out of the vocabulary, as if it was added later"""
    del keys["model"]["vocab"]["<|endoftext|>"]


@pytest.mark.parametrize("change", [lambda keys: None, pairs, endoftext_added], ids=["lines", "pairs", "added"])
def test_load_of_gpt2s_tokenizer_json(change, tmp_path):
    keys = gpt2()
    change(keys)
    t = write(tmp_path, keys)
    assert t.encode(TEXT) == TOKENIZER.encode(TEXT)
    assert (t.n_vocab, t.eot) == (270, 269)
    assert t.vocabulary == TOKENIZER.vocabulary


def test_load_of_the_tokenizers_librarys_file(data, tmp_path):
    """Use the vocabulary that OpenAI released"""
    tokenizers = pytest.importorskip("tokenizers", reason="tokenizers isn't installed: pip install -e '.[test]'")
    files = [str(data / "tokenizer" / name) for name in ("vocab.bpe", "encoder.json")]
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE.from_file(files[1], files[0]))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    theirs.add_special_tokens(["<|endoftext|>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = tokenizer.load(tmp_path)
    text = (data / "text" / "the-verdict.txt").read_text()
    assert ours.encode(text) == theirs.encode(text).ids
    assert (ours.n_vocab, ours.eot) == (50257, 50256)
    assert ours.vocabulary == tokenizer.load(data / "tokenizer").vocabulary


@pytest.mark.parametrize("names", [tokenizer.HUGGING_FACE, tokenizer.OPENAI])
def test_load_prefers_the_two_files_to_tokenizer_json(names, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    for name, content in zip(names, TOKENIZER.files, strict=True):
        (tmp_path / name).write_bytes(content)
    assert tokenizer.load(tmp_path).files == TOKENIZER.files


def test_save_replaces_tokenizer_json_by_the_two_files(tmp_path):
    # Other programs would read tokenizer.json instead, which may be another vocabulary's
    save(MODEL, tmp_path)
    write(tmp_path, gpt2())
    m = load(tmp_path)
    assert m.tokenizer.encode(TEXT) == TOKENIZER.encode(TEXT)
    save(m, tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    assert load(tmp_path).tokenizer.vocabulary == TOKENIZER.vocabulary
    write(tmp_path, gpt2())
    save(MODEL._replace(tokenizer=bpe.tokenizer([])), tmp_path)
    assert not (tmp_path / "tokenizer.json").exists()
    assert load(tmp_path).tokenizer.n_vocab == 257


def test_save_without_a_tokenizer_keeps_the_vocabulary_of_tokenizer_json(tmp_path):
    write(tmp_path, gpt2())
    save(MODEL, tmp_path)
    assert load(tmp_path).tokenizer.vocabulary == TOKENIZER.vocabulary


def test_save_refuses_to_replace_a_tokenizer_json_that_belongs_to_no_checkpoint(tmp_path):
    t = write(tmp_path, gpt2())
    with pytest.raises(GPTError, match=r"has another vocabulary, tokenizer\.json, and no checkpoint: choose another"):
        save(MODEL._replace(tokenizer=bpe.tokenizer([])), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    save(MODEL._replace(tokenizer=t), tmp_path)  # the same vocabulary
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "tokenizer.json").write_text("{}")
    with pytest.raises(GPTError, match="has another vocabulary, tokenizer"):
        save(MODEL._replace(tokenizer=t), tmp_path / "other")


def changed(*names, value):
    """Return a function that changes one value"""

    def change(keys):
        for name in names[:-1]:
            keys = keys[name]
        keys[names[-1]] = value

    return change


OTHERS = {
    "no BPE": (changed("model", "type", value="WordPiece"), "model.type 'WordPiece', and GPT-2's"),
    "a normalizer": (changed("normalizer", value={"type": "NFC"}), "normalizer {'type': 'NFC'}"),
    "another split": (changed("pre_tokenizer", value={"type": "Sequence"}), "pre_tokenizer.type 'Sequence'"),
    "no split": (changed("pre_tokenizer", "use_regex", value=False), "pre_tokenizer.use_regex False"),
    "a space before": (changed("pre_tokenizer", "add_prefix_space", value=True), "pre_tokenizer.add_prefix_space True"),
    "another decoder": (changed("decoder", value=None), "decoder.type None"),
    "dropout": (changed("model", "dropout", value=0.1), "model.dropout 0.1"),
    "a prefix": (changed("model", "continuing_subword_prefix", value="##"), "model.continuing_subword_prefix '##'"),
    "a suffix": (changed("model", "end_of_word_suffix", value="</w>"), "model.end_of_word_suffix '</w>'"),
    "bytes as a fallback": (changed("model", "byte_fallback", value=True), "model.byte_fallback True"),
    "whole words": (changed("model", "ignore_merges", value=True), "model.ignore_merges True"),
    "tokens around": (
        changed("post_processor", value={"type": "TemplateProcessing", "special_tokens": {"<s>": {}}}),
        "post_processor.special_tokens {'<s>': {}}",
    ),
    "another token": (changed("added_tokens", value=[{"id": 0, "content": "!"}]), "adds the token '!', and GPT-2"),
    "another id": (
        changed("added_tokens", value=[{"id": 0, "content": "<|endoftext|>"}]),
        r"gives <\|endoftext\|> the ids 269 and 0",
    ),
    "an added token without a name": (changed("added_tokens", value=[7]), "has an added token without content, 7"),
    "no vocabulary": (changed("model", "vocab", value=[]), "has no object model.vocab"),
    "an id too high": (changed("model", "vocab", "at", value=270), "the token 'at' has the id 270"),
    "no merges": (changed("model", "merges", value=None), "has None among its merges, not two tokens"),
    "a merge of three": (changed("model", "merges", 0, value=["a", "b", "c"]), "among its merges, not two tokens"),
    "a merge of numbers": (changed("model", "merges", 0, value=[1, 2]), "among its merges, not two tokens"),
    "half a character": (changed("model", "merges", 0, value="\ud800 a"), "isn't text"),
    "no model": (changed("model", value=7), "model.type None"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_encode_with_another_kind_of_tokenizer_json_raises(other, tmp_path):
    change, pattern = OTHERS[other]
    keys = gpt2()
    change(keys)
    t = write(tmp_path, keys)
    with pytest.raises(CheckpointError, match=pattern) as error:
        t.encode("the")
    assert str(tmp_path / "tokenizer.json") in str(error.value)


def test_load_of_weights_beside_another_kind_of_tokenizer_json(tmp_path):
    save(MODEL, tmp_path)
    write(tmp_path, {"model": {"type": "WordPiece"}})
    m = load(tmp_path)
    assert m.config == MODEL.config
    with pytest.raises(CheckpointError, match="remove the file to use the weights without a tokenizer"):
        m.tokenizer.encode("the")
    for model in (m, MODEL):
        with pytest.raises(CheckpointError, match=r"tokenizer\.json has model\.type 'WordPiece'"):
            save(model, tmp_path)
    assert (tmp_path / "tokenizer.json").exists()
