"""Are the entries of a file read exactly, and each fault explained? Do examples have the tokens of generation?"""

import json

import pytest

from numpy_gpt import GPTError
from numpy_gpt.finetune.instructions import Entry, Example, encode, read_entries, split
from numpy_gpt.text import bpe, tokenizer
from numpy_gpt.text.template import ALPACA, Template

ENTRIES = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue."},
    {"instruction": "Translate.\n", "input": "{input} <|endoftext|>", "output": " l'été 👍 "},
    {"output": "Yes.", "instruction": "Say yes."},
]
EXPECTED = [
    Entry("Name a colour.", "", "Blue."),
    Entry("Translate.\n", "{input} <|endoftext|>", " l'été 👍 "),
    Entry("Say yes.", "", "Yes."),
]
SHORT = Template("{instruction}=", "{instruction}+{input}=")
BYTES = bpe.tokenizer([])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data.json"


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_read_entries_of_a_json_list(indent, encoding, path):
    path.write_text(json.dumps(ENTRIES, indent=indent, ensure_ascii=False), encoding=encoding)
    assert read_entries(str(path)) == EXPECTED


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\n \n\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_read_entries_of_json_lines(newline, encoding, path):
    text = newline.join(json.dumps(entry) for entry in ENTRIES)
    for end in ("", newline):
        path.write_bytes((text + end).encode(encoding))
        assert read_entries(str(path)) == EXPECTED


def test_read_entries_of_json_lines_keeps_other_line_separators_in_a_text(path):
    entry = {"instruction": "a\u2028b\x0bc", "output": "d\x85"}
    path.write_text(json.dumps(entry, ensure_ascii=False) + "\n")
    assert read_entries(str(path)) == [Entry("a\u2028b\x0bc", "", "d\x85")]


def test_read_entries_of_the_instruction_data(data):
    entries = read_entries(str(data / "text" / "instruction-data.json"))
    assert len(entries) == 1100
    assert entries[0].input == "freind --> friend"
    assert entries[-1].output


GOOD = '{"instruction": "a", "output": "b"}'
NEEDED = 'an entry is an object with the texts "instruction", "output" and, if'
FAULTS = {
    "empty": ("", f" has no entries: {NEEDED}"),
    "empty list": ("[]", f" has no entries: {NEEDED}"),
    "text": ("hello", r", entry 1 isn't valid JSON \(Expecting value at line 1, column 1\): give a JSON list"),
    "line": (f"{GOOD}\n\n{{'a': 1}}", r", entry 2 isn't valid JSON \(.* at line 3, column 2\): give a JSON list"),
    "list": (f"[{GOOD},\n{GOOD}\n{GOOD}]", r" isn't valid JSON \(.* at line 3, column 1\): give a JSON list"),
    "more": (f"[{GOOD}]\n[{GOOD}]", r" isn't valid JSON \(Extra data at line 2, column 1\)"),
    "nested": ("[" * 100_000, r" isn't valid JSON \(.*recursion"),
    "digits": (f"[{'9' * 5000}]", r" isn't valid JSON \(Exceeds the limit"),
    "number": (f"[{GOOD}, 3]", f", entry 2 is a number: {NEEDED}"),
    "lists": (f"[{GOOD}, {GOOD}, []]", f", entry 3 is a list: {NEEDED}"),
    "null": (f"{GOOD}\nnull", f", entry 2 is null: {NEEDED}"),
    "keys": ('{"prompt": "a", "completion": "b"}', f", entry 1 has the keys 'prompt', 'completion': {NEEDED}"),
    "extra": (f'[{GOOD[:-1]}, "inputs": "c"}}]', ", entry 1 has the keys 'instruction', 'output', 'inputs': an entry"),
    "missing": (f'[{GOOD}, {{"instruction": "a", "input": "b"}}]', ", entry 2 has the keys 'instruction', 'input': an"),
    "no keys": ("{}", f", entry 1 has no keys: {NEEDED}"),
    "twice": ('{"output": "a", "instruction": "b", "output": "c"}', ", entry 1 has the key 'output' twice: remove one"),
    "a number": ('[{"instruction": "a", "output": 7}]', ', entry 1 has a number under the key "output", and a text is'),
    "a boolean": ('[{"instruction": true, "output": "7"}]', ', entry 1 has a boolean under the key "instruction", and'),
    "a null": ('[{"instruction": "a", "input": null, "output": "b"}]', ', entry 1 has null under the key "input", and'),
    "an object": ('{"instruction": {"a": 1}, "output": "b"}', ', entry 1 has an object under the key "instruction",'),
    "a list": ('{"instruction": "a", "output": ["b"]}', ', entry 1 has a list under the key "output", and a text is'),
    "no output": (f'{GOOD}\n{{"instruction": "a", "output": ""}}', ', entry 2 has an empty "output": add the text, or'),
    "spaces": ('{"instruction": " \\n", "output": "b"}', ', entry 1 has an empty "instruction": add the text, or'),
    "surrogate": (
        '{"instruction": "a\\ud800", "output": "b"}',
        r", entry 1 has '\\ud800' in .*, which is half a char",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_read_entries_of_an_invalid_file_raises_one_sentence(name, path):
    text, fault = FAULTS[name]
    path.write_text(text)
    with pytest.raises(GPTError, match=f"^{path}{fault}") as caught:
        read_entries(str(path))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_read_entries_of_invalid_utf8_raises_with_the_line(path):
    path.write_bytes(b'{"instruction": "a",\n "output": "\xff"}')
    with pytest.raises(GPTError, match=f"^{path} isn't UTF-8 text: line 2 has the byte 0xff\\."):
        read_entries(str(path))


def test_read_entries_of_no_file_raises(tmp_path):
    for name, fault in [("no.json", "can't be read: No such file"), (".", "can't be read: it is neither a file")]:
        with pytest.raises(GPTError, match=fault):
            read_entries(str(tmp_path / name))


def test_encode_returns_the_prompt_the_response_and_endoftext():
    example = encode(Entry("ab", "", "cd"), SHORT, BYTES, 100)
    assert example == Example([*BYTES.encode("ab="), *BYTES.encode("cd"), BYTES.eot], start=3)
    example = encode(Entry("ab", "x", "cd"), SHORT, BYTES, 100)
    assert BYTES.decode(example.ids[: example.start]) == "ab+x="


def test_encode_takes_endoftext_in_a_text_as_characters():
    entry = Entry("<|endoftext|>", "", "<|endoftext|>")
    ids = encode(entry, ALPACA, BYTES, 1000).ids
    assert [i for i, token in enumerate(ids) if token == BYTES.eot] == [len(ids) - 1]


def test_encode_merges_no_token_across_the_end_of_the_prompt():
    pairs = bpe.tokenizer(bpe.train(["xy xy xy"], 258))
    assert len(pairs.encode("xy")) == 1
    example = encode(Entry("a", "", "y"), Template("{instruction}x", "{instruction}{input}"), pairs, 100)
    assert example == Example([*pairs.encode("a"), *pairs.encode("x"), *pairs.encode("y"), pairs.eot], start=2)


def test_encode_cuts_an_example_at_the_context_and_one_token():
    ids = [*BYTES.encode("ab=cd"), BYTES.eot]
    found = {context: encode(Entry("ab", "", "cd"), SHORT, BYTES, context) for context in (2, 3, 4, 5, 6)}
    assert found == {2: None, 3: Example(ids[:4], 3), 4: Example(ids[:5], 3), 5: Example(ids, 3), 6: Example(ids, 3)}


def test_encode_without_endoftext_ends_with_the_response(tmp_path):
    encoder, merges = BYTES.files
    (tmp_path / "encoder.json").write_text(json.dumps({k: i for k, i in json.loads(encoder).items() if i < 256}))
    (tmp_path / "vocab.bpe").write_bytes(merges)
    without = tokenizer.load(tmp_path)
    assert without.eot is None
    assert encode(Entry("ab", "", "cd"), SHORT, without, 100) == Example(without.encode("ab=cd"), 3)
    assert encode(Entry("ab", "", "c"), SHORT, without, 2) is None


@pytest.mark.parametrize(("n", "validation"), [(2, 1), (9, 1), (10, 1), (19, 1), (20, 2), (1100, 110)])
def test_split_takes_each_entry_once(n, validation):
    train, val = split(n, seed=0)
    assert len(val) == validation
    assert sorted(train + val) == list(range(n))


def test_split_depends_on_the_seed_alone():
    assert split(100, 1) == split(100, 1)
    assert split(100, 1) != split(100, 2)
    assert split(100, 1)[1] != sorted(split(100, 1)[1])


@pytest.mark.parametrize("n", [0, 1])
def test_split_of_fewer_than_two_entries_raises(n):
    with pytest.raises(GPTError, match=f"the data have {n} entries: give at least 2"):
        split(n, 0)
