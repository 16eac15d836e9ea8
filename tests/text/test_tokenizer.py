"""Are the tokens GPT-2's for every text, and is every invalid vocabulary refused?"""

import json
import random
import subprocess
import sys
from dataclasses import replace

import pytest

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis isn't installed: pip install -e '.[test]'")
import tiktoken  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from tiktoken.load import data_gym_to_mergeable_bpe_ranks  # noqa: E402

from numpy_gpt import CheckpointError, GPTError, init, load, save  # noqa: E402
from numpy_gpt.text import bpe, tokenizer  # noqa: E402
from parity.inputs import TINY  # noqa: E402

many = settings(max_examples=500, deadline=None, derandomize=True, database=None)
# tiktoken_ext.openai_public has it for "gpt2", and would download the vocabulary
TIKTOKENS_PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"""


@pytest.fixture(scope="module")
def ours(data):
    return tokenizer.load(data / "tokenizer")


@pytest.fixture(scope="module")
def theirs(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")
        ranks = data_gym_to_mergeable_bpe_ranks(
            vocab_bpe_file=str(data / "tokenizer" / "vocab.bpe"),
            encoder_json_file=str(data / "tokenizer" / "encoder.json"),
            vocab_bpe_hash="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            encoder_json_hash="196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        )
    special = {"<|endoftext|>": 50256}
    return tiktoken.Encoding(
        "gpt2", pat_str=TIKTOKENS_PATTERN, mergeable_ranks=ranks, special_tokens=special, explicit_n_vocab=50257
    )


NO_IDS = [5, None, 1.5, "abc", b"abc", object()]
NO_ID = [1.5, None, "a", [1], 10**9, -1]


@pytest.mark.parametrize("wrong", NO_IDS)
def test_decode_refuses_arguments_that_are_no_ids(wrong):
    t = load("storyteller").tokenizer
    for decode in (t.decode, t.decode_bytes):
        with pytest.raises(GPTError, match=r"ids is .*: it must be a list of token ids"):
            decode(wrong)


@pytest.mark.parametrize("wrong", NO_ID)
def test_decode_and_decoder_refuse_ids_outside_the_vocabulary(wrong):
    t = load("storyteller").tokenizer
    for decode in (t.token, t.decoder().feed, lambda i: t.decode([1, i]), lambda i: t.decode_bytes([i])):
        with pytest.raises(GPTError, match="isn't in the vocabulary, which has 0 to 4095"):
            decode(wrong)


HARD = {
    "contractions": "it's IT'S don't we'll We'LL I'd they've you're 'tis 's's''s ' s",
    "runs of spaces": "a  b   c    d     \n\n\n e \t\t f \r\n\r\n  ",
    "spaces at the end": "word    ",
    "lines alone": "\n" * 1000,
    "no-break spaces": "a\u00a0b \u00a0 c\u2003d\u3000e",
    "Chinese, Japanese, Korean": "我喜欢机器学习。東京タワー 서울",
    "one family, many code points": "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈",
    "combining marks": "e\u0301\u0302\u0323 Z̷a̶l̸g̵o̴",
    "digits of all kinds": "3.14159 ١٢٣ ½ ² 1234567890 ⅷ",
    "signs": "!!!??? -- ... <html> {}[]() \\ /// #@$%^&*",
    "marks that look special": "<|endoftext|> <|endoftext|>",
    "half a surrogate pair": "a\ud83db",
    "control characters": "\x00\x01\x1c\x1f\x7f\x85",
    "one letter, often": "a" * 50_000,
    "spaces, often": " " * 100_000 + "x",
    "nothing": "",
}


@pytest.mark.parametrize("case", HARD)
def test_encode_of_hard_cases_matches_tiktoken(case, ours, theirs):
    ids = ours.encode(HARD[case])
    assert ids == theirs.encode_ordinary(HARD[case])
    assert ours.decode(ids) == HARD[case].encode("utf-16", "surrogatepass").decode("utf-16", "replace")


alphabet = "a'sdtlvrem SDT 1½é\u0301\u00a0\n\t\r\u2003\x1c\x85我👍.,!?<|>"
texts = st.one_of(st.text(), st.text(alphabet), st.text(st.characters(categories=["Zs", "Cc", "Mn", "N", "L"])))


def test_encode_of_any_text_matches_tiktoken_and_decodes_to_it(ours, theirs):
    @many
    @given(texts)
    def check(text):
        ids = ours.encode(text)
        assert ids == theirs.encode_ordinary(text)
        assert ours.decode(ids) == text

    check()


def test_encode_of_hard_cases_matches_transformers(ours, data):
    transformers = pytest.importorskip("transformers", reason="transformers isn't installed: pip install -e '.[test]'")
    files = (data / "tokenizer" / name for name in ("encoder.json", "vocab.bpe"))
    other = transformers.GPT2Tokenizer(*(str(file) for file in files))
    for case in set(HARD) - {"half a surrogate pair", "marks that look special"}:
        assert ours.encode(HARD[case]) == other.encode(HARD[case]), case


def test_encode_of_a_million_spaces_before_a_word(ours):
    # tiktoken alone overflows its stack
    for space in (" ", "\n", " \n", "\u00a0", "\u3000\x85"):
        text = "begin" + space * 1_000_000 + "end"
        ids = ours.encode(text)
        assert ours.decode(ids) == text
        assert ids[-1] == ours.encode(f"{text[-4]}end")[-1]
    for end in ("x", "\x1c"):  # \x1c is white space in Python, not in tiktoken
        assert ours.encode(" " * 1_000_001 + end) == [220] * 1_000_000 + ours.encode(f" {end}")


def test_encode_and_decode_of_published_tokens(ours):
    assert ours.encode("Hello world!") == [15496, 995, 0]
    assert (ours.n_vocab, ours.eot) == (50257, 50256)
    assert ours.encoding.encode("a<|endoftext|>", allowed_special="all") == [64, 50256]
    assert ours.decode([15496, 50256]) == "Hello<|endoftext|>"


def test_decoder_returns_the_same_text_as_decode(ours):
    @many
    @given(st.lists(st.integers(0, 50256)), texts)
    def check(ids, text):
        for some in (ids, ours.encode(text)):
            decoder = ours.decoder()
            assert "".join([*map(decoder.feed, some), decoder.flush()]) == ours.decode(some)

    check()


def test_decoder_holds_back_an_incomplete_character(ours):
    ids = ours.encode("👍!")
    assert len(ids) > 2
    decoder = ours.decoder()
    assert [decoder.feed(i) for i in ids] == [""] * (len(ids) - 2) + ["👍", "!"]
    decoder = ours.decoder()
    assert (decoder.feed(ids[0]), decoder.flush()) == ("", "\ufffd")


@pytest.mark.parametrize("wrong", [50257, -1, 1.5, "a", None, 10**30])
def test_decode_of_an_invalid_id_raises(wrong, ours):
    with pytest.raises(GPTError, match=r"the token id .* isn't in the vocabulary, which has 0 to 50256"):
        ours.decode([15496, wrong])


@pytest.mark.parametrize("wrong", [b"bytes", None, 7])
def test_encode_of_no_text_raises(wrong, ours):
    with pytest.raises(GPTError, match=f"text is {type(wrong).__name__}: it must be str"):
        ours.encode(wrong)


def test_tokenizer_parses_lazily_and_writes_no_cache(data, tmp_path):
    script = f"""
import sys
from pathlib import Path
from numpy_gpt.text import tokenizer
t = tokenizer.load(Path({str(data / "tokenizer")!r}))
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
assert "tiktoken" not in sys.modules and not t.__dict__.keys() - {{"encoder", "merges", "contents"}}
print(t.decode([15496]), "tiktoken" in sys.modules, len(t.encode("Hello")))
assert not [path for path in opened if "tmp" in path or "cache" in path.lower() and "__pycache__" not in path], opened
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env={"TMPDIR": str(tmp_path)})
    assert run.stdout == "Hello False 1\n", run.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def tiny(tmp_path):
    """Return a new directory with a vocabulary of 270 tokens"""
    bpe.write(tmp_path, bpe.train(["the cat and the hat and the bat"], 270))
    return tmp_path


def test_save_and_load_keep_the_tokenizer(tiny):
    m = init(replace(TINY, n_vocab=270))._replace(tokenizer=tokenizer.load(tiny))
    ids = m.tokenizer.encode("the cat")
    for place, format in (("openai", "openai"), ("huggingface", "huggingface")):
        save(m, tiny / place, format)
        loaded = load(tiny / place)
        assert loaded.tokenizer.encode("the cat") == ids
        assert loaded.tokenizer.files == m.tokenizer.files
    save(m, tiny / "model.safetensors")
    assert load(tiny / "model.safetensors").tokenizer.encode("the cat") == ids  # the two files are beside it


def test_save_leaves_out_a_tokenizer_of_another_type(tmp_path):
    m = init(TINY)._replace(tokenizer="any object")
    for place, format in (("openai", "openai"), ("huggingface", "huggingface")):
        save(m, tmp_path / place, format)
        assert load(tmp_path / place).tokenizer is None


def test_load_of_a_vocabulary_with_endoftext_first(tiny):
    ids = json.loads((tiny / "encoder.json").read_text())
    moved = {token: 0 if token == tokenizer.EOT else i + 1 for token, i in ids.items()}
    (tiny / "vocab.json").write_text(json.dumps(moved))
    (tiny / "vocab.bpe").rename(tiny / "merges.txt")
    before = [i + 1 for i in range(269)]
    (tiny / "encoder.json").unlink()
    t = tokenizer.load(tiny)
    assert (t.eot, t.n_vocab) == (0, 270)
    assert t.decode(t.encode("the bat")) == "the bat"
    assert sorted(set(t.vocabulary[0].values())) == before
    assert len(t.encode("the bat")) == 2


def test_load_of_a_vocabulary_without_endoftext(tiny):
    ids = json.loads((tiny / "encoder.json").read_text())
    del ids[tokenizer.EOT]
    (tiny / "encoder.json").write_text(json.dumps(ids))
    t = tokenizer.load(tiny)
    assert (t.eot, t.n_vocab) == (None, 269)
    assert t.decode(t.encode("<|endoftext|>")) == "<|endoftext|>"


def test_load_of_half_a_vocabulary(tiny):
    (tiny / "vocab.bpe").rename(tiny / "merges.txt")
    with pytest.raises(CheckpointError, match=r"vocab\.bpe can't be read: No such file"):
        tokenizer.load(tiny)
    (tiny / "encoder.json").unlink()
    assert tokenizer.load(tiny) is None  # other tokenizers of Hugging Face have merges.txt or vocab.json too


def test_save_refuses_an_invalid_vocabulary(tiny):
    (tiny / "encoder.json").write_bytes((tiny / "encoder.json").read_bytes()[:100])
    m = init(replace(TINY, n_vocab=270))._replace(tokenizer=tokenizer.load(tiny))
    with pytest.raises(CheckpointError, match=r"encoder\.json isn't valid JSON"):
        save(m, tiny / "new")
    assert not (tiny / "new").exists()


def test_loaded_tokenizer_is_independent_of_its_files(tiny):
    t = tokenizer.load(tiny)
    (tiny / "vocab.bpe").unlink()
    assert t.decode(t.encode("the cat")) == "the cat"


def changed_ids(**ids):
    return lambda encoder, merges: (encoder | ids, merges)


WRONG = {
    "an id twice": (changed_ids(at=0), "encoder.json: '!' and 'at' have one id, 0"),
    "an id too high": (changed_ids(at=270), "encoder.json: the token 'at' has the id 270"),
    "an id below 0": (changed_ids(at=-1), "encoder.json: the token 'at' has the id -1"),
    "an id of true": (changed_ids(at=True), "encoder.json: the token 'at' has the id True"),
    "an id of text": (changed_ids(at="256"), "encoder.json: the token 'at' has the id '256'"),
    "a token that no merge makes": (changed_ids(xyz=270), "vocab.bpe doesn't make the token 'xyz'"),
    "a sign that is no byte": (changed_ids(我=270), "encoder.json: the token '我' has the character '我'"),
    "a byte that is lacking": (
        lambda e, m: ({**{k: v for k, v in e.items() if k != "!"}, "at!": 0}, m),
        "lacks the byte '!'",
    ),
    "merges in another order": (
        lambda e, m: (e, [m[0], m[2], m[1], *m[3:]]),
        "vocab.bpe: .* isn't a merge of two tokens into the next",
    ),
    "a merge twice": (lambda e, m: (e, [*m[:2], *m[1:]]), "vocab.bpe: .* isn't a merge of two tokens into the next"),
    "a merge that is lacking": (lambda e, m: (e, m[:-1]), "vocab.bpe doesn't make the token"),
    "a merge of three": (lambda e, m: (e, [m[0], "t h e", *m[1:]]), "vocab.bpe: 't h e' isn't a merge of two tokens"),
    "a merge of one": (lambda e, m: (e, [m[0], "the", *m[1:]]), "vocab.bpe: 'the' isn't a merge of two tokens"),
    "a merge of unknown tokens": (lambda e, m: (e, [m[0], "zz zz", *m[1:]]), "'zz zz' isn't a merge of two tokens"),
    "no merges": (lambda e, m: (e, []), "vocab.bpe doesn't make the token"),
}


@pytest.mark.parametrize("case", WRONG)
def test_encode_refuses_an_invalid_vocabulary(case, tiny):
    change, pattern = WRONG[case]
    encoder = json.loads((tiny / "encoder.json").read_text())
    encoder, merges = change(encoder, (tiny / "vocab.bpe").read_text().splitlines())
    (tiny / "encoder.json").write_text(json.dumps(encoder))
    (tiny / "vocab.bpe").write_text("\n".join(merges))
    with pytest.raises(CheckpointError, match=pattern):
        tokenizer.load(tiny).encode("the")


@pytest.mark.parametrize("file", ["encoder.json", "vocab.bpe"])
def test_load_refuses_a_file_that_is_too_large(file, tiny):
    with open(tiny / file, "r+b") as f:
        f.truncate(tokenizer.LARGEST + 1)
    with pytest.raises(CheckpointError, match=rf"{file} has 33,554,433 bytes, and a valid one has at most 33,554,432"):
        tokenizer.load(tiny).encode("the")


def test_load_of_merges_without_version_and_last_newline(tiny):
    ids = tokenizer.load(tiny).encode("the cat and the hat")
    version, merges = (tiny / "vocab.bpe").read_text().split("\n", 1)
    assert version == "#version: 0.2"
    (tiny / "vocab.bpe").write_text(merges.removesuffix("\n"))
    assert tokenizer.load(tiny).encode("the cat and the hat") == ids


@pytest.mark.slow
@pytest.mark.parametrize("file", ["encoder.json", "vocab.bpe"])
def test_a_changed_vocabulary_works_or_is_refused(file, tiny):
    content = (tiny / file).read_bytes()
    rng = random.Random(0)
    refused = 0
    for _ in range(1000):
        changed = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(changed))
            changed[at : at + rng.choice([0, 1, 5])] = rng.choice(
                [b"", b"\xff", b"9", b" ", b'"', b"\n", rng.randbytes(3)]
            )
        (tiny / file).write_bytes(changed)
        try:
            t = tokenizer.load(tiny)
            assert t.decode(t.encode("the cat, the end")) == "the cat, the end"
        except CheckpointError as e:
            message = str(e)
            refused += 1
            assert str(tiny) in message
    assert refused > 500
