"""Render conversations by the template of instructions.

All messages of the system and of the user up to the next answer are joined by blank lines: together they are one
instruction. Each answer ends with <|endoftext|>, as in training, or with a blank line if the vocabulary lacks it.
"""

import json
from collections.abc import Iterable
from typing import NamedTuple

from .template import Template, render
from .tokenizer import EOT, Tokenizer

BLANK_LINE = "\n\n"


class Turn(NamedTuple):
    instruction: str
    answer: str | None  # None if the model is to answer


def end_of_answer(tokenizer: Tokenizer) -> str:
    """Return the text between an answer and the next instruction"""
    return BLANK_LINE if tokenizer.eot is None else EOT


def encode(turns: Iterable[Turn], template: Template, tokenizer: Tokenizer) -> list[int]:
    """Return the tokens of a conversation; <|endoftext|> in a message is ordinary text"""
    end = tokenizer.encode(BLANK_LINE) if tokenizer.eot is None else [tokenizer.eot]
    ids = []
    for instruction, answer in turns:
        ids += tokenizer.encode(render(template, instruction))
        if answer is not None:
            ids += tokenizer.encode(answer) + end
    return ids


def as_turn(template: Template, tokenizer: Tokenizer) -> str:
    """Return the text of a turn with {message} and {answer}, as the page of the server needs it"""
    return render(template, "{message}") + "{answer}" + end_of_answer(tokenizer)


def as_jinja(template: Template, tokenizer: Tokenizer) -> str:
    """Return the chat template that transformers' apply_chat_template renders"""
    prompt = " + chat.instruction + ".join(map(literal, template.prompt.split("{instruction}")))
    answer = f"message['content'] + {literal(end_of_answer(tokenizer))}"
    separator = f"({literal(BLANK_LINE)} if chat.instruction else '')"
    return (
        "{%- set chat = namespace(instruction='') -%}"
        "{%- for message in messages -%}"
        "{%- if message['role'] == 'assistant' -%}"
        f"{{{{- {prompt} + {answer} -}}}}"
        "{%- set chat.instruction = '' -%}"
        "{%- else -%}"
        f"{{%- set chat.instruction = chat.instruction + {separator} + message['content'] -%}}"
        "{%- endif -%}"
        "{%- endfor -%}"
        f"{{%- if chat.instruction -%}}{{{{- {prompt} -}}}}{{%- endif -%}}"
    )


def literal(text: str) -> str:
    """Return a text as a string in Jinja, whose escapes are those of JSON except for characters beyond U+FFFF"""
    return json.dumps(text, ensure_ascii=False)
