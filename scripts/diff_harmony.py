"""Random conversations through transformers and through `descant data render`, compared in every field.

    pip install transformers jinja2            # no torch needed
    descant tokenizer build --out TOKENIZER
    python scripts/diff_harmony.py --model TOKENIZER --binary target/debug/descant --rows 2000 --seed 1

The reference is the official template in transformers' own Jinja environment, with the date given, and the published
tokenizer in the Python library. Spans and masks are computed here from the ids, by the definitions of the three policies
(`assistant`, `final_only`, `everything`) and by no code of ours. Rows are of every kind that the template has a branch
for, and of kinds it refuses; both sides must give the same text, ids, spans and masks, or both must refuse.

Then the same rows without --template-exact, where the reader mends what exact rendering leaves: null keys dropped,
`reasoning` and `reasoning_content` taken as `thinking`, arguments in a text parsed, content parts joined, tools wrapped, other
names of a speaker taken. Those that it accepts are compared with the reference on mended rows; ids only where no content
holds a control token.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

from tokenizers import Tokenizer  # noqa: E402
from transformers.utils.chat_template_utils import _compile_jinja_template  # noqa: E402

START, MESSAGE, CHANNEL = 200006, 200008, 200005
END, RETURN, CALL = 200007, 200002, 200012
DATES = ["2025-08-13", "2025-08-05", "2024-02-29"]
POLICIES = ["assistant", "final_only", "everything"]

WORDS = """apple Berg été niño Straße 日本語 العربية हिन्दी ไทย русский 👩‍👩‍👧 don't I'VE 3.14 1,000 x=1; {"a":1} <b>&amp; C:\\x "q" 'q'
\u007f \u0000 \u001b[31m \u0085 \u2028 \ufeff e\u0301 ﬁ Ⅷ ١٢٣ \ufdd0 \ufdd1 _ ~ ` \\n // -> 中文，標點。""".split()
GAPS = [" ", " ", " ", "\n", "\n\n", "  ", "\t", "\r\n", "", " \n ", "   "]
CONTROL = ["<|end|>", "<|start|>assistant", "<|channel|>", "<|return|>", "<|call|>", "<|endoftext|>", "<|constrain|>json",
           "<|message|>", "<|reserved_200500|>", "<|END|>", "<|start|>user<|message|>"]


class Maker:
    """Makes rows; everything it does follows from its seed."""

    def __init__(self, seed, injected):
        self.r = random.Random(seed)
        self.injected = injected

    def one(self, *items):
        return self.r.choice(items)

    def chance(self, p):
        return self.r.random() < p

    def text(self, most=12):
        if self.chance(0.06):
            return self.one("", " ", "\n", "\t", "\r\n", "null", "0")
        parts = []
        for _ in range(self.r.randint(1, most)):
            parts.append(self.r.choice(CONTROL) if self.chance(self.injected) else self.r.choice(WORDS))
            parts.append(self.r.choice(GAPS))
        return "".join(parts)

    def value(self, depth=0):
        kind = self.r.randint(0, 9 if depth < 3 else 5)
        if kind == 0:
            return self.r.choice([0, 1, -7, 12345678901234, 2**63 - 1, 2**64 - 1, -(2**63)])
        if kind == 1:
            return self.r.choice([0.0, -0.0, 1.5, 20.0, 1e20, 1e-7, 1e16, 1e15, 0.1 + 0.2, 123456789.125, 5e-324, 1e22, -2.5e-5])
        if kind == 2:
            return self.r.choice([None, True, False])
        if kind <= 5:
            return self.text(4)
        if kind <= 7:
            return [self.value(depth + 1) for _ in range(self.r.randint(0, 3))]
        return {self.key(): self.value(depth + 1) for _ in range(self.r.randint(0, 3))}

    def key(self):
        return self.one("a", "b", "city", "unit", "x y", "é", "items", "type", "n" + str(self.r.randint(0, 9)))

    def spec(self, depth=0):
        kind = self.one("string", "number", "integer", "boolean", "array", "object", "null", "any", "types", "oneOf", "enum", "none")
        spec = {}
        if kind in ("string", "number", "integer", "boolean", "null", "any"):
            spec["type"] = kind
        elif kind == "enum":
            spec = {"type": "string", "enum": [self.text(2) for _ in range(self.r.randint(0, 3))]}
        elif kind == "types":
            spec["type"] = [self.one("string", "null", "object", "array") for _ in range(self.r.randint(0, 3))]
        elif kind == "array":
            spec["type"] = "array"
            if self.chance(0.8):
                spec["items"] = self.spec(depth + 1) if depth < 3 else {"type": self.one("string", "number", "integer", "boolean", "object")}
        elif kind == "object":
            spec["type"] = "object"
            if self.chance(0.7) and depth < 3:
                spec["properties"] = {self.key(): self.spec(depth + 1) for _ in range(self.r.randint(0, 3))}
                self.required(spec)
        elif kind == "oneOf":
            spec["oneOf"] = [self.spec(depth + 1) if depth < 2 else {"type": "string"} for _ in range(self.r.randint(0, 3))]
        if self.chance(0.2):
            spec["nullable"] = self.one(True, False)
        if self.chance(0.35):
            spec["description"] = self.text(4)
        if self.chance(0.3):
            spec["default"] = self.value(2)
        return spec

    def required(self, holder):
        if self.chance(0.6):
            names = list(holder.get("properties", {}))
            holder["required"] = self.r.sample(names, self.r.randint(0, len(names)))

    def tool(self):
        function = {"name": self.one("get_weather", "f", "search-web", "été"), "description": self.text(5)}
        if self.chance(0.05):
            del function["description"]
        if self.chance(0.85):
            parameters = {"type": "object"}
            if self.chance(0.9):
                parameters["properties"] = {self.key(): self.spec() for _ in range(self.r.randint(0, 4))}
                self.required(parameters)
            function["parameters"] = parameters
        if self.chance(0.05):
            function["parameters"] = self.one(None, {})
        return {"type": "function", "function": function} if self.chance(0.97) else function

    def call(self):
        call = {"name": self.one("get_weather", "f", "a.b"), "arguments": {self.key(): self.value(1) for _ in range(self.r.randint(0, 3))}}
        if self.chance(0.15):
            call["arguments"] = json.dumps(call["arguments"], ensure_ascii=self.chance(0.5))
        if self.chance(0.04):
            del call["arguments"]
        if self.chance(0.1):
            call["content_type"] = self.one("json", "<|constrain|>json", "code")
        if self.chance(0.7):
            call = {"id": "c1", "type": "function", "function": call}
        return call

    def assistant(self, call):
        message = {"role": "assistant"}
        if self.chance(0.55):
            message[self.one("thinking", "thinking", "thinking", "thinking", "reasoning_content", "reasoning")] = self.text()
        if call:
            message["tool_calls"] = [self.call() for _ in range(2 if self.chance(0.05) else 1)]
            if self.chance(0.25) and "thinking" not in message or self.chance(0.03):
                message["content"] = self.text()
        else:
            message["content"] = self.text()
        return message

    def messages(self):
        messages = []
        if self.chance(0.5):
            messages.append({"role": self.one("system", "developer"), "content": self.text()})
        for _ in range(self.r.randint(1, 4)):
            messages.append({"role": "user", "content": self.text()})
            while self.chance(0.35):
                messages.append(self.assistant(True))
                messages.append({"role": "tool", "content": self.value(1) if self.chance(0.5) else self.text()})
                if self.chance(0.3):
                    messages[-1]["name"] = "get_weather"
            if self.chance(0.92):
                messages.append(self.assistant(self.chance(0.15)))
        if self.chance(0.15):
            messages.pop()
        return messages

    def damage(self, row):
        """What data sets get wrong, and what the template refuses."""
        messages = row["messages"]
        at = self.r.randrange(len(messages)) if messages else 0
        kind = self.r.randint(0, 13)
        if not messages:
            return
        if kind == 0:
            messages[at]["content"] = self.one(None, 5, True, ["a"], {"x": 1}, [{"type": "text", "text": "part"}, {"type": "text", "text": self.text(3)}])
        elif kind == 1:
            messages[at]["thinking"] = self.one(None, "", self.text(3))
        elif kind == 2:
            messages.insert(at, {"role": self.one("system", "developer", "tool", "function", "critic"), "content": self.text(3)})
        elif kind == 3:
            messages[at].pop(self.one("role", "content", "tool_calls", "thinking"), None)
        elif kind == 4:
            messages.clear()
        elif kind == 5:
            messages[at]["tool_calls"] = self.one(None, [], [self.call()], "[]")
        elif kind == 6:
            messages[at]["content"] = "<|channel|>" + self.one("analysis", "final") + "<|message|>x"
        elif kind == 7:
            row["template_kwargs"]["reasoning_effort"] = self.one(None, 3, "", "extreme")
        elif kind == 8:
            row["template_kwargs"]["model_identity"] = self.one(None, 3, "", "You.")
        elif kind == 9:
            row["template_kwargs"]["builtin_tools"] = self.one(None, [], ["unknown"], "python", {"browser": 1})
        elif kind == 10:
            row["tools"] = self.one([], [{}], [{"type": "function"}], {}, "")
        elif kind == 11:
            messages[at]["role"] = self.one("user", "assistant", "tool", "system", None)
        elif kind == 12:
            messages.insert(at, dict(messages[at]))
        else:
            messages[at]["extra"] = self.value()

    def row(self, number):
        row = {"id": f"r{number}", "messages": self.messages(), "tools": None, "add_generation_prompt": self.chance(0.3), "template_kwargs": {}}
        if self.chance(0.35):
            row["tools"] = [self.tool() for _ in range(self.r.randint(1, 3))]
        if self.chance(0.3):
            row["template_kwargs"]["reasoning_effort"] = self.one("low", "medium", "high")
        if self.chance(0.2):
            row["template_kwargs"]["model_identity"] = self.text(5)
        if self.chance(0.2):
            row["template_kwargs"]["builtin_tools"] = self.one(["browser"], ["python"], ["browser", "python"], ["python", "other"])
        if self.chance(0.2):
            self.damage(row)
        return row


def rendered(template, row, date):
    variables = {"messages": row["messages"], "tools": row["tools"], "add_generation_prompt": row["add_generation_prompt"],
                 "strftime_now": lambda pattern: date if pattern == "%Y-%m-%d" else 1 / 0}
    return template.render(**{**variables, **row["template_kwargs"]})


def spans(ids):
    """Every `<|start|> header <|message|> body closing`, by the tokens alone."""
    found, at = [], 0
    while START in ids[at:]:
        start = ids.index(START, at)
        at = start + 1
        rest = [i for i in range(start + 1, len(ids)) if ids[i] in (START, MESSAGE)]
        if not rest or ids[rest[0]] != MESSAGE:
            continue
        body = rest[0] + 1
        closing = [i for i in range(body, len(ids)) if ids[i] in (END, RETURN, CALL)]
        if not closing:
            break
        at = closing[0] + 1
        found.append((start, body, at))
    return found


def masks(tokenizer, ids, found):
    def encoded(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    assistant, given = [0] * len(ids), encoded("<|start|>assistant")
    prompted = True
    for start, body, end in found:
        if ids[start : start + 2] != given:
            prompted = True
            continue
        first = start + 2 if prompted else start
        assistant[first:end] = [1] * (end - first)
        prompted = ids[end - 1] != END
    final, on = [0] * len(ids), False
    response, instruction = encoded("<|start|>assistant<|channel|>final<|message|>"), encoded("<|start|>user<|message|>")
    at = 0
    while at < len(ids):
        if on and ids[at : at + len(instruction)] == instruction:
            on = False
        if not on and ids[at : at + len(response)] == response:
            on = True
            at += len(response)
            continue
        final[at] = int(on)
        at += 1
    return {"assistant": assistant, "final_only": final, "everything": [1] * len(ids)}


SPEAKERS = {"function": "tool", "observation": "tool", "function_response": "tool", "tool_response": "tool",
            "human": "user", "gpt": "assistant", "model": "assistant"}


def mended(row):
    """What the reader makes of a row; None where it refuses on purpose what the template would lose."""
    row = json.loads(json.dumps(row))
    row["template_kwargs"] = {k: v for k, v in row["template_kwargs"].items() if v is not None}
    if isinstance(row.get("tools"), list):
        wrap = lambda tool: {"type": "function", "function": tool}  # noqa: E731
        row["tools"] = [wrap(tool) if "function" not in tool and "name" in tool else tool for tool in row["tools"]]
    for message in row["messages"]:
        message["role"] = SPEAKERS.get(message.get("role"), message.get("role"))
        for key in [key for key, value in message.items() if value is None]:
            del message[key]
        for alias in ("reasoning", "reasoning_content"):
            if alias in message:
                message["thinking"] = message.pop(alias)
        if message.get("role") != "assistant":
            message.pop("thinking", None)
        if isinstance(message.get("content"), list) and message.get("role") != "tool":
            message["content"] = "".join(part["text"] if isinstance(part, dict) else part for part in message["content"])
        calls = message.get("tool_calls")
        if calls == [] or calls == "[]":
            del message["tool_calls"]
            calls = None
        for call in calls or []:
            function = call.get("function", call)
            function.setdefault("arguments", {})
            if isinstance(function["arguments"], str):
                function["arguments"] = json.loads(function["arguments"])
            if isinstance(function.get("arguments"), type(None)):
                function["arguments"] = {}
    return row


def ours(binary, model, path, date, policy, exact):
    command = [binary, "data", "render", "--model", model, "--input", path, "--date", date, "--json", "--mask", policy]
    ran = subprocess.run(command + (["--template-exact"] if exact else []), capture_output=True, text=True, encoding="utf-8")
    if ran.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{ran.stderr}")
    return [json.loads(line) for line in ran.stdout.splitlines()]


def first_difference(a, b):
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return f"at {at}: {a[max(0, at - 40):at + 40]!r} | {b[max(0, at - 40):at + 40]!r}"


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--model", required=True)
    arguments.add_argument("--binary", required=True)
    arguments.add_argument("--rows", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--injected", type=float, default=0.02, help="share of words that are control strings")
    arguments.add_argument("--show", type=int, default=10)
    arguments = arguments.parse_args()
    tokenizer = Tokenizer.from_file(os.path.join(arguments.model, "tokenizer.json"))
    with open(os.path.join(arguments.model, "chat_template.jinja"), encoding="utf-8") as file:
        template = _compile_jinja_template(file.read())
    maker = Maker(arguments.seed, arguments.injected)
    rows = [maker.row(number) for number in range(arguments.rows)]
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8", delete=False) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=arguments.seed % 2 == 0) + "\n")
    complaints, equal, refused, protected, left = [], 0, 0, 0, 0

    def complain(row, kind, what):
        complaints.append(f"{row['id']} {kind}: {what}\n    {json.dumps(row, ensure_ascii=False)[:1500]}")

    date = DATES[arguments.seed % len(DATES)]
    answers = {policy: ours(arguments.binary, arguments.model, file.name, date, policy, True) for policy in POLICIES}
    for number, row in enumerate(rows):
        first = answers["assistant"][number]
        try:
            text = rendered(template, row, date)
        except Exception as error:
            refused += 1
            if "error" not in first:
                complain(row, "exact", f"python refuses ({type(error).__name__}: {str(error)[:80]}), descant does not")
            continue
        if "error" in first:
            complain(row, "exact", f"descant refuses: {first['error']}")
            continue
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        found = spans(ids)
        expected = masks(tokenizer, ids, found)
        if first["text"] != text:
            complain(row, "exact text", first_difference(first["text"], text))
        elif first["ids"] != ids:
            complain(row, "exact ids", first_difference(first["ids"], ids))
        elif [(m["start"], m["body"], m["end"]) for m in first["messages"]] != found:
            complain(row, "exact spans", f"{first['messages']} | {found}")
        else:
            wrong = [policy for policy in POLICIES if answers[policy][number]["mask"] != expected[policy]]
            if wrong:
                complain(row, "exact mask", f"{wrong[0]} {first_difference(answers[wrong[0]][number]['mask'], expected[wrong[0]])}")
            equal += not wrong
    for row, answer in zip(rows, ours(arguments.binary, arguments.model, file.name, date, "assistant", False)):
        if "error" in answer:
            left += 1
            continue
        try:
            text = rendered(template, mended(row), date)
        except Exception as error:
            complain(row, "mended", f"python refuses ({type(error).__name__}: {str(error)[:80]}), descant does not")
            continue
        if answer["text"] != text:
            complain(row, "mended text", first_difference(answer["text"], text))
            continue
        said = json.dumps(row, ensure_ascii=False)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if "<|" not in said and answer["ids"] != ids:
            complain(row, "mended ids", first_difference(answer["ids"], ids))
        protected += 1
    os.unlink(file.name)
    for complaint in complaints[: arguments.show]:
        print(complaint)
    print(f"{arguments.rows} rows of seed {arguments.seed}: exact {equal} equal, {refused} refused by both sides or complained of; "
          f"protected {protected} equal, {left} refused; {len(complaints)} differences")
    sys.exit(bool(complaints))


main()
