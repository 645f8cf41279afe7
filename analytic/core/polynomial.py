"""Counts as polynomials in the dimensions of a call: a formula evaluated once, for every call.

A formula that takes an int or an array also takes a `Polynomial`, and returns one: it adds and multiplies dimensions, with
whole coefficients. What is no polynomial, a comparison or a quotient that is not exact, becomes a dimension of its own that
is a function of another polynomial. `Evaluation` gives the numbers of one call, or of an array of calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import ge, gt, le, lt
from typing import Any

Monomial = tuple["Dimension", ...]
"""Dimensions in order, each as often as its power."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Dimension:
    """A symbol of a polynomial. `least`: it is never smaller.

    `of` and `argument`: a function of the numbers of another polynomial; None for a dimension that is given.
    """

    name: str
    least: int
    of: Callable[[Any], Any] | None = field(default=None, compare=False)
    argument: Polynomial | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True, eq=False)
class Polynomial:
    """A sum of products of dimensions, each with a whole coefficient; `terms` has none that is zero."""

    terms: Mapping[Monomial, int]

    @classmethod
    def dimension(cls, name: str, *, least: int) -> Any:
        """The given dimension `name`."""
        return cls({(Dimension(name=name, least=least),): 1})

    def mapped(self, name: str, function: Callable[[Any], Any]) -> Any:
        """`function` of this count, at least 0, as a dimension that `name` identifies together with the polynomial."""
        return Polynomial({(Dimension(name=f"{name} of {self}", least=0, of=function, argument=self),): 1})

    def __str__(self) -> str:
        terms = (f"{by} {' '.join(dimension.name for dimension in monomial)}" for monomial, by in self.terms.items())
        return f"({' + '.join(sorted(terms))})"

    def __add__(self, other: Any) -> Any:
        if isinstance(other, Maximum):
            return other + self
        terms = dict(self.terms)
        for monomial, by in polynomial(other).terms.items():
            terms[monomial] = terms.get(monomial, 0) + by
        return _simplified(terms)

    __radd__ = __add__

    def __neg__(self) -> Any:
        return self * -1

    def __sub__(self, other: Any) -> Any:
        return self + -1 * other

    def __rsub__(self, other: Any) -> Any:
        return -1 * self + other

    def __mul__(self, other: Any) -> Any:
        terms: dict[Monomial, int] = {}
        for left, times in self.terms.items():
            for right, by in polynomial(other).terms.items():
                product = tuple(sorted(left + right))
                terms[product] = terms.get(product, 0) + times * by
        return _simplified(terms)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Any:
        if all(by % divisor == 0 for by in self.terms.values()):
            return Polynomial({monomial: by // divisor for monomial, by in self.terms.items()})
        return self.mapped(f"// {divisor}", partial(_quotient, divisor=divisor))

    def __gt__(self, other: Any) -> Any:
        return self._compared(gt, other)

    def __ge__(self, other: Any) -> Any:
        return self._compared(ge, other)

    def __lt__(self, other: Any) -> Any:
        return self._compared(lt, other)

    def __le__(self, other: Any) -> Any:
        return self._compared(le, other)

    def __eq__(self, other: Any) -> Any:
        return (self >= other) * (self <= other)

    __hash__ = None  # type: ignore[assignment]  # as Python says it of a class whose == is not identity

    def __bool__(self) -> bool:
        raise TypeError(f"{self}: got a condition on a count that may be an array, accepted: a factor of 0 or 1")

    @property
    def least(self) -> int | None:
        """A number that it is never smaller than; None if it is not known."""
        if any(by < 0 for monomial, by in self.terms.items() if monomial):
            return None
        return sum(by * _product([dimension.least for dimension in monomial]) for monomial, by in self.terms.items())

    def _compared(self, comparison: Callable[[Any, Any], Any], other: Any) -> Any:
        """1 or 0 where the least values decide, else a dimension that is 1 or 0."""
        difference = self - other
        if isinstance(difference, int):
            return comparison(difference, 0) * 1
        above, below = difference.least, (-difference).least
        if above is not None and (above > 0 or (above == 0 and comparison in (ge, lt))):
            return comparison(1 if above > 0 else 0, 0) * 1
        if below is not None and (below > 0 or (below == 0 and comparison in (le, gt))):
            return comparison(-1 if below > 0 else 0, 0) * 1
        return difference.mapped(comparison.__name__, partial(_indicator, comparison))


@dataclass(frozen=True, slots=True, eq=False)
class Maximum:
    """The largest of several polynomials."""

    candidates: tuple[Polynomial, ...]

    def __add__(self, other: Any) -> Maximum:
        return Maximum(tuple(polynomial(candidate + other) for candidate in self.candidates))

    __radd__ = __add__

    @classmethod
    def of(cls, left: Any, right: Any) -> Maximum:
        """The larger of two counts; a candidate is left out where another is never smaller."""
        kept: list[Polynomial] = []
        for one in (*_candidates(left), *_candidates(right)):
            if not any(_never_smaller(other, one) for other in kept):
                kept = [other for other in kept if not _never_smaller(one, other)] + [one]
        return cls(tuple(kept))


Sum = tuple[int, tuple[tuple[int, int], ...]]
"""A constant, and (place of a value, coefficient) for each other term."""
Step = tuple[str, Any, Any]
"""What a value is: `given` a name, the `product` of two earlier ones, or a `function` of a sum."""


class Evaluation:
    """Counts by name, prepared to be evaluated often. Products that several of them share are formed once."""

    def __init__(self, counts: Mapping[str, Any]) -> None:
        self._steps: list[Step] = []
        self._place: dict[Monomial, int] = {}
        self._sums = {name: [self._sum(candidate) for candidate in _candidates(count)] for name, count in counts.items()}
        self._place.clear()

    def at(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The value of every count for the `given` dimensions, ints or int64 arrays; one without a dimension is an int."""
        values: list[Any] = []
        for kind, first, second in self._steps:
            if kind == "given":
                values.append(given[first])
            elif kind == "product":
                values.append(values[first] * values[second])
            else:
                values.append(first(_total(second, values)))
        return {name: _largest([_total(one, values) for one in sums]) for name, sums in self._sums.items()}

    def _sum(self, count: Polynomial) -> Sum:
        terms = [(self._placed(monomial), by) for monomial, by in count.terms.items() if monomial]
        return count.terms.get((), 0), tuple(terms)

    def _placed(self, monomial: Monomial) -> int:
        """The place of a product of dimensions, after those of its factors."""
        if monomial not in self._place:
            *before, last = monomial
            step: Step = ("given", last.name, None)
            if before:
                step = ("product", self._placed(tuple(before)), self._placed((last,)))
            elif last.of is not None and last.argument is not None:
                step = ("function", last.of, self._sum(last.argument))
            self._steps.append(step)
            self._place[monomial] = len(self._steps) - 1
        return self._place[monomial]


def _total(one: Sum, values: Sequence[Any]) -> Any:
    constant, terms = one
    total: Any = 0
    for place, by in terms:
        total += values[place] * by  # in place once it is an array, which is its own
    if constant:
        total += constant
    return total


def _largest(values: Sequence[Any]) -> Any:
    largest, *others = values
    for value in others:
        if isinstance(largest, int) and isinstance(value, int):
            largest = max(largest, value)
        else:
            import numpy as np

            largest = np.maximum(largest, value)
    return largest


def polynomial(count: Any) -> Polynomial:
    """A count as a polynomial. Raises TypeError for what is not a whole number."""
    if isinstance(count, Polynomial):
        return count
    if not isinstance(count, int):
        raise TypeError(f"count: got {count!r} beside a polynomial, accepted: an int or a polynomial")
    return Polynomial({(): int(count)} if count else {})


def _simplified(terms: Mapping[Monomial, int]) -> Any:
    """A polynomial, or an int if no dimension is left."""
    left = {monomial: by for monomial, by in terms.items() if by}
    return left.get((), 0) if set(left) <= {()} else Polynomial(left)


def _candidates(count: Any) -> Sequence[Polynomial]:
    return count.candidates if isinstance(count, Maximum) else (polynomial(count),)


def _never_smaller(left: Polynomial, right: Polynomial) -> bool:
    difference = left - right
    least = difference if isinstance(difference, int) else difference.least
    return least is not None and least >= 0


def _product(numbers: Sequence[int]) -> int:
    product = 1
    for number in numbers:
        product *= number
    return product


def _quotient(value: Any, *, divisor: int) -> Any:
    return value // divisor


def _indicator(comparison: Callable[[Any, Any], Any], difference: Any) -> Any:
    return comparison(difference, 0) * 1
