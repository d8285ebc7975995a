"""What an answer is, and what can be said of it: the checks of all exercises are built of these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

CHECKS: dict[str, Callable[[Any], str]] = {}
"""by the name of an exercise, the function that says what is off; its docstring says what is asked for"""


class Unfit(Exception):
    """An answer of the wrong kind; the message says which kind is asked for."""


def check(name: str, answer: Any) -> None:
    """Say whether an answer is right, or what is off; None is "not done yet". Raises ValueError for an unknown name."""
    if name not in CHECKS:
        raise ValueError(f"there is no exercise {name!r}; there is: {', '.join(CHECKS)}.")
    asked = " ".join((CHECKS[name].__doc__ or "").split())
    asked = f"Asked for: {asked[0].lower()}{asked[1:]}"
    if answer is None:
        print(f"{name}: not done yet. {asked}")
        return
    try:
        with torch.no_grad():
            print(f"{name}: {CHECKS[name](answer)}")
    except Unfit as problem:
        print(f"{name}: {problem} {asked}")


def guess(mine: str | None, right: str, choices: str = "ABC") -> str:
    """What a prediction was worth, as a sentence without its full stop."""
    if mine is None:
        return "You did not guess"
    if not isinstance(mine, str) or mine.upper() not in tuple(choices):
        return f"You guessed {mine!r}, which is none of {', '.join(choices)}"
    return f"You guessed {mine.upper()}, " + ("and so it is" if mine.upper() == right else "which is not it; read on")


def exercise(name: str) -> Callable:
    """Enter a function among the checks."""
    return lambda function: CHECKS.setdefault(name, function)


def numbers(answer: Any, count: int = 1) -> Tensor:
    """The answer as `count` numbers, float64."""
    try:
        found = torch.tensor(flat(answer), dtype=torch.float64)
    except (TypeError, ValueError):
        found = torch.empty(0)
    if len(found) != count:
        raise Unfit(f"this is not {'a number' if count == 1 else f'{count} numbers'}.")
    return found


def flat(answer: Any) -> list[float]:
    """Numbers, lists of them, arrays and tensors as one list. Raises TypeError or ValueError for anything else."""
    if isinstance(answer, (Tensor, np.ndarray)):
        return flat(answer.flatten().tolist())
    if isinstance(answer, (list, tuple)):
        return [x for part in answer for x in flat(part)]
    if isinstance(answer, (str, bool)):
        raise TypeError("a number is asked for")
    return [float(answer)]


def call(answer: Any, *inputs: Any, kind: type | tuple = Tensor) -> Any:
    """What the reader's function returns."""
    if not callable(answer):
        raise Unfit("this is not a function.")
    try:
        found = answer(*inputs)
    except Exception as error:
        raise Unfit(f"your function stopped with {type(error).__name__}: {error}.") from None
    if not isinstance(found, kind):
        raise Unfit(
            f"your function returns {'nothing' if found is None else f'something of type {type(found).__name__}'}."
        )
    return found


def compare(found: Tensor, truth: Any, mistakes: dict[str, Any], near: float = 1e-3, then: str = "") -> str:
    """Whether found is the truth, or one of the known mistakes; else what can be said of its sign and size."""
    truth = torch.as_tensor(truth).double()
    found, size = found.double(), truth.norm().clamp(min=1e-12)
    if found.shape != truth.shape:
        return f"the shape is {tuple(found.shape)}, it should be {tuple(truth.shape)}."
    if not found.isfinite().all():
        return "there are values in it that are not finite."
    known = [truth, *(torch.as_tensor(m).double().expand_as(truth) for m in mistakes.values())]
    off = [float((found - value).norm() / size) for value in known]
    if off[0] <= near:
        return f"right. {then}".strip()
    best = min(range(len(off)), key=off.__getitem__)
    if best and off[best] <= near:
        return list(mistakes)[best - 1]
    if truth.ndim == 1 and len(truth) < 6:  # numbers: a factor would give them away
        sayings = [size_of(*pair, near) for pair in zip(found.tolist(), truth.tolist(), strict=True)]
        if len(truth) == 1:
            return f"not yet: it {sayings[0]}."
        return "not yet: " + "; ".join(f"number {k} {said}" for k, said in enumerate(sayings, 1) if said) + "."
    factor = float((found * truth).sum() / size**2)
    if float((found - factor * truth).norm() / size) > near:
        return "not yet: it differs by more than a factor."
    sign = "right" if factor > 0 else "wrong"
    return f"not yet: the sign is {sign}, the size {abs(factor):.2g} times what it should be."


def size_of(found: float, truth: float, near: float) -> str:
    """In words, how a number differs from what it should be; empty if it is near enough."""
    if abs(found - truth) <= near * abs(truth):
        return ""
    if found * truth < 0:
        return "has the wrong sign"
    much = "much " if max(abs(found), abs(truth)) > 2 * min(abs(found), abs(truth)) else ""
    return f"is {much}too {'large' if abs(found) > abs(truth) else 'small'}"


def chosen(answer: Any, right: str, notes: dict[str, str], then: str) -> str:
    """Whether a choice is right; notes: what is said of the wrong ones."""
    if not isinstance(answer, str) or answer not in {right, *notes}:
        raise Unfit(f"choose one of {', '.join(sorted({right, *notes}))}.")
    return f"right. {then}" if answer == right else f"not {answer}: {notes[answer]}"
