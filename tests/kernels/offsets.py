"""Products in 32 bits that reach an address, read from a kernel as Triton's front end leaves it (TTIR)."""

from __future__ import annotations

import re
from dataclasses import dataclass

INDICES = {"%share"}  # arguments that count rows: what is taken of them starts a tile
NAME = re.compile(r"%\w+")
RESULT = re.compile(r"^\s*(%\w+)(?::\d+)? = \"?([\w.]+)\"?(.*)$")
INITIAL = re.compile(r"(%\w+) = (%\w+)")


@dataclass(frozen=True)
class Value:
    """What an integer or an address is made of."""

    bounded: bool = False  # by the size of a tile
    argument: bool = False  # what the launcher passes, as it is
    multiplied: bool = False
    wrong: frozenset[str] = frozenset()  # products that may pass 2^31 where no count of rows does


def overflowing(ttir: str) -> list[str]:
    """Return the products in 32 bits in addresses that may pass 2^31 though the numbers of rows and columns do not.

    Innocent are the products within a tile, also of its rows and a stride, and the start of a tile, which is an index:
    a scalar of one product, no factor of which is an argument, as a stride is, unless it is one of `INDICES`.
    """
    values: dict[str, Value] = {}
    found: set[str] = set()
    for line in ttir.splitlines():
        code = line.partition(" loc(")[0] if "tt.func" not in line else line
        if "tt.func" in code:
            values |= {name: Value(argument=name not in INDICES) for name in NAME.findall(code)}
        elif match := RESULT.match(code):
            name, operation, rest = match.groups()
            if operation == "scf.for":
                _enter(values, rest)
            values[name] = _value(operation, rest, values)
            if operation == "tt.addptr":
                found |= values[name].wrong
        elif "scf.for" in code:
            _enter(values, code.partition("scf.for")[2])
    return sorted(found)


def _enter(values: dict[str, Value], loop: str) -> None:
    """Give what a loop counts, and what it carries, the makings of what they start from."""
    count, _, carried = loop.partition("iter_args")
    name, *bounds = NAME.findall(count)
    values[name] = Value(wrong=_union(bounds, values))
    for name, start in INITIAL.findall(carried):
        values[name] = values.get(start, Value())


def _value(operation: str, rest: str, values: dict[str, Value]) -> Value:
    operands = [values.get(name, Value()) for name in NAME.findall(rest)]
    wrong = frozenset[str]().union(*(each.wrong for each in operands))
    if operation in ("arith.constant", "tt.make_range"):
        return Value(bounded=True)
    if operation in ("tt.splat", "tt.broadcast", "tt.expand_dims", "arith.extsi", "tt.reshape"):
        return operands[0]
    if operation == "arith.muli" and "i64" in rest.rpartition(":")[2]:
        return Value(wrong=wrong)
    if operation == "arith.muli":
        return _product(rest, operands[0], operands[1], wrong)
    return Value(
        bounded=bool(operands) and all(each.bounded for each in operands) and operation.startswith("arith"),
        multiplied=any(each.multiplied for each in operands) and operation in ("arith.addi", "arith.subi"),
        wrong=wrong,
    )


def _product(text: str, a: Value, b: Value, wrong: frozenset[str]) -> Value:
    """Return a product in 32 bits."""
    if a.bounded and b.bounded:
        return Value(bounded=True, wrong=wrong)
    tensor = "tensor<" in text
    within = tensor and ((a.bounded and b.argument) or (b.bounded and a.argument))
    start = not tensor and not (a.multiplied or b.multiplied) and not (a.argument or b.argument)
    blame = frozenset[str]() if within or start else frozenset({text.strip()})
    return Value(multiplied=True, wrong=wrong | blame)


def _union(names: list[str], values: dict[str, Value]) -> frozenset[str]:
    return frozenset[str]().union(*(values.get(name, Value()).wrong for name in names))
