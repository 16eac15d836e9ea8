"""Does finetune predict classify texts from the command line, files and pipes, as they arrive?"""

import json
import os
import shlex
import subprocess
from pathlib import Path
from threading import Timer

import numpy as np
import pytest
from finetune_runs import COMMAND, failed, finetuned, write_base, write_rows

from numpy_gpt.checkpoint import classifier as checkpoint
from numpy_gpt.finetune import classification
from numpy_gpt.finetune.predict import BLOCK, complete_lines

TRAIN = ["--init-from", "base", "--data", "rows.tsv", "--batch-size", "8", "--epochs", "6", "--lr", "0.01"]
BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Return a directory that contains a small model, and a classifier that was trained from it"""
    directory = tmp_path_factory.mktemp("predict")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        write_base("base")
        write_rows("rows.tsv")
        finetuned("classify", *TRAIN, "--dropout", "0", "--out", "run")
    return directory


@pytest.fixture
def directory(trained, tmp_path, monkeypatch):
    """Work in an empty directory with links to a classifier and to its base model"""
    for name in ("base", "run"):
        (tmp_path / name).symlink_to(trained / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def predict(stdin, *args):
    """Run the command with these bytes in a pipe; return its exit status, stdout and stderr"""
    done = subprocess.run([*COMMAND, "predict", "run", *args], input=stdin, capture_output=True, timeout=60)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def labels(out):
    return [line.split("\t")[0] for line in out.splitlines()]


def by_hand(text):
    """Return the probabilities of the labels of a text"""
    m = checkpoint.read(Path("run"))
    ids = m.tokenizer.encode(text)[:32]
    z = classification.predict(m.params, m.config, (np.array([ids]), np.array([len(ids) - 1])))[0].astype(float)
    return np.exp(z) / np.exp(z).sum()


def test_prediction_of_a_text_is_its_most_probable_label(directory):
    fruit, tool = by_hand("pear fig")
    assert fruit > 0.8
    assert finetuned("predict", "run", "pear fig") == f"fruit\t{fruit:.3f}\n"
    found = json.loads(finetuned("predict", "run", "pear fig", "--json"))
    assert found["label"] == "fruit"
    assert found["probability"] == pytest.approx(fruit, rel=1e-5)
    assert found["probabilities"] == pytest.approx({"fruit": fruit, "tool": tool}, rel=1e-5)


def test_probabilities_are_independent_of_order_and_of_other_lines(directory):
    texts = [
        "pear",
        "saw axe " * 20,
        "fig plum apple",
        "",
        "drill " * 3,
        "x",
        "file é",
        *(f"pear {i}" for i in range(40)),
    ]
    expected = [by_hand(text)[0] for text in texts if text]
    for order in (range(len(texts)), range(len(texts))[::-1]):
        Path("texts.txt").write_text("".join(texts[i] + "\n" for i in order))
        lines = finetuned("predict", "run", "-f", "texts.txt", "--json").splitlines()
        found = {i: json.loads(line)["probabilities"]["fruit"] for i, line in zip(order, lines, strict=True)}
        # in float32, matmuls of other shapes round in another way
        assert [found[i] for i, text in enumerate(texts) if text] == pytest.approx(expected, rel=1e-5)


def test_text_longer_than_the_context_is_cut(directory):
    words = "pear fig saw drill axe file plum"  # 32 bytes
    assert len(words) == 32
    assert finetuned("predict", "run", words) == finetuned("predict", "run", words + " apple" * 1000)
    assert finetuned("predict", "run", words, "--json") != finetuned("predict", "run", words[:-1], "--json")


def test_predict_cuts_texts_as_the_training_did(directory):
    write_rows("rows.tsv")
    finetuned("classify", *TRAIN, "--context", "4", "--out", "short")
    assert finetuned("predict", "short", "pear", "--json") == finetuned("predict", "short", "pear saw saw", "--json")
    assert finetuned("predict", "short", "pear", "--json") != finetuned("predict", "short", "pea", "--json")
    config = json.loads(Path("short/tokenizer_config.json").read_text())
    assert config["model_max_length"] == 4  # transformers' tokenizer truncates to it
    finetuned("classify", "--resume", "--out", "short", "--epochs", "7")
    assert checkpoint.read(Path("short")).context == 4


@pytest.mark.parametrize(
    "arguments", [["run", "--json", "pear"], ["--json", "run", "pear"], ["run", "--json", "--", "pear"]]
)
def test_option_may_stand_before_the_text(directory, arguments):
    assert finetuned("predict", *arguments) == finetuned("predict", "run", "pear", "--json")


def test_text_may_follow_a_config_file(directory):
    Path("predict.toml").write_text("json = true\n")
    assert finetuned("predict", "run", "--config", "predict.toml", "pear").startswith("{")


@pytest.mark.parametrize("text", ["", "   "])
def test_text_without_words_has_a_result(directory, text):
    assert labels(finetuned("predict", "run", text))[0] in ("fruit", "tool")


def test_lines_of_a_pipe_have_one_result_each(directory):
    content = b"\xef\xbb\xbfpear\r\n\nsaw\x0cdrill\r\n \nfig\naxe"
    status, out, err = predict(content)
    assert (status, err) == (0, "")
    found = labels(out)
    assert len(found) == 6
    assert (found[0], found[2], found[4], found[5]) == ("fruit", "tool", "fruit", "tool")
    Path("texts.txt").write_bytes(content)
    assert finetuned("predict", "run", "-f", "texts.txt") == out
    plain = b"pear\n\nsaw\x0cdrill\n \nfig\naxe\n"
    assert predict(plain) == (0, out, "")


def test_empty_pipe_has_no_result(directory):
    assert predict(b"") == (0, "", "")


@pytest.mark.parametrize("before", [[], ["pear"], ["pear"] * 14_000])
def test_lines_before_invalid_utf8_are_classified(directory, before):
    status, out, err = predict("".join(text + "\n" for text in before).encode() + b"ab\xff\nsaw\n")
    assert (status, labels(out)) == (1, ["fruit"] * len(before))
    line = f"line {len(before) + 1} isn't UTF-8 text: byte 2 of the line is 0xff: save the texts as UTF-8."
    assert err == f"finetune: stdin, {line}\n"


def test_results_appear_while_the_pipe_is_open(directory):
    command = [*COMMAND, "predict", "run"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=BUFFERED) as p:
        limit = Timer(30, p.kill)  # a command that waits for the end of the pipe would never answer
        limit.start()
        for text, label in ((b"pear\n", b"fruit"), (b"saw", None), (b" axe\nfig", b"tool"), (b"\n", b"fruit")):
            p.stdin.write(text)
            p.stdin.flush()
            if label:
                assert p.stdout.readline().split(b"\t")[0] == label
        assert p.communicate(b"pl")[0].count(b"\n") == 1
        limit.cancel()
    assert p.returncode == 0


def test_lines_are_divided_at_any_block_edge():
    class Blocks:
        def __init__(self, *blocks):
            self.blocks = [*blocks, b""]

        def read1(self, size):
            assert size == BLOCK
            return self.blocks.pop(0)

    blocks = Blocks(b"a", b"b\n", b"\nc", b"d", b"e\nf\n", b"g")
    assert [line for lines in complete_lines(blocks) for line in lines] == [b"ab", b"", b"cde", b"f", b"g"]


def test_closed_reader_ends_the_command_quietly(directory):
    command = f"set -o pipefail; seq 100000 | {shlex.join([*COMMAND, 'predict', 'run'])} 2>err | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=BUFFERED, timeout=60)
    assert done.stdout.count(b"\n") == 1
    assert Path("err").read_text() == ""


@pytest.mark.parametrize(
    ("redirection", "status", "message"),
    [(">&-", 0, ""), (">/dev/full", 1, "finetune: the output can't be written: No space left on device.\n")],
)
def test_closed_or_full_stdout(directory, redirection, status, message):
    command = f"{shlex.join([*COMMAND, 'predict', 'run', 'pear'])} {redirection}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, env=BUFFERED, timeout=60)
    assert (done.returncode, done.stderr.decode()) == (status, message)


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["base", "x"], 3, "finetune: base isn't a classifier, since it has no score.weight: train one first."),
        (["nowhere", "x"], 3, "finetune: nowhere doesn't exist: give the directory of a classifier."),
        (["run/config.json", "x"], 3, "finetune: run/config.json is a file: give the directory of a classifier."),
        ([".", "x"], 3, "finetune: . has no model.safetensors: give the directory of a classifier."),
        (["run", "-f", "nowhere"], 1, "finetune: nowhere can't be read: No such file or directory."),
        (["run", "-f", "base"], 1, "finetune: base can't be read: Is a directory."),
        (["run", "x", "-f", "y"], 2, "predict: error: the command line has a text and --file: give one of them."),
        (["run", "x", "y"], 2, "predict: error: unrecognized arguments: y"),
        (["run", "-f", ""], 2, "predict: error: --file is empty: give a file."),
        (["", "x"], 2, "predict: error: DIR is empty: give the directory of a classifier."),
        ([], 2, "predict: error: the following arguments are required: DIR"),
    ],
)
def test_mistake_is_explained_in_one_line(directory, arguments, status, line):
    found, last = failed("predict", *arguments)
    assert found == status
    assert last.endswith(line)


def copied():
    """Copy the classifier, so that a test can damage it"""
    Path("copy").mkdir()
    for name in ("config.json", "model.safetensors", "merges.txt", "vocab.json", "tokenizer_config.json"):
        Path("copy", name).write_bytes(Path("run", name).read_bytes())
    return Path("copy")


def test_classifier_without_its_training_run_predicts_the_same(directory):
    copied()
    assert finetuned("predict", "copy", "pear", "--json") == finetuned("predict", "run", "pear", "--json")


def test_corrupt_classifier_is_refused(directory):
    weights = copied() / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    status, line = failed("predict", "copy", "x")
    assert status == 3
    assert "copy: the tensor score.weight is corrupt: its checksum is" in line


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"0": "fruit"}, "copy has 1 labels in config.json, and score.weight has the shape (2, 16): restore"),
        ({"0": "fruit", "2": "tool"}, "copy/config.json has no id2label from 0, 1, ... to labels: restore"),
        (None, "copy/config.json has no id2label from 0, 1, ... to labels: restore"),
    ],
)
def test_classifier_with_other_labels_is_refused(directory, labels, message):
    path = copied() / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "id2label": labels}))
    status, line = failed("predict", "copy", "x")
    assert status == 3
    assert message in line


def test_classifier_without_a_vocabulary_is_refused(directory):
    (copied() / "vocab.json").unlink()
    Path("copy/merges.txt").unlink()
    status, line = failed("predict", "copy", "x")
    assert status == 1
    assert line.startswith("finetune: copy has no tokenizer: put the vocabulary that")
