# SPDX-License-Identifier: Apache-2.0
"""Which labels a PromQL expression has, and what in it can never match.

Prometheus answers a misspelt metric or label with nothing, and a healthy node, too: silence proves little.

Belongs here: labels, followed from the metrics up through an expression. Does not belong here: which metrics there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promql_parser import (
    AggModifierType,
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    LabelModifierType,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    VectorMatchCardinality,
    VectorSelector,
    parse,
    walk,
)

TARGET = frozenset({"job", "instance"})
"""What Prometheus adds to each series."""
Labels = frozenset[str]


class Fault(Exception):
    """What in an expression can never match."""


def labels_of(expression: str, known: Mapping[str, Labels]) -> Labels:
    """The labels of the answer, beside the target's. *known* has those of each metric. Raises Fault."""
    return _labels(parse(expression), known) - TARGET


def selectors(expression: str) -> list[str]:
    """What it asks for, each an instant query of its own."""
    found = []

    def visit(node: Expr) -> None:
        if isinstance(node, MatrixSelector):
            node = node.vector_selector
        if isinstance(node, VectorSelector):
            found.append(node.prettify())

    walk(parse(expression), visit)
    return found


def _labels(node: Expr, known: Mapping[str, Labels]) -> Labels:
    if isinstance(node, VectorSelector):
        return _selected(node, known)
    if isinstance(node, MatrixSelector):
        return _selected(node.vector_selector, known)
    if isinstance(node, ParenExpr):
        return _labels(node.expr, known)
    if isinstance(node, AggregateExpr):
        return _aggregated(node, known)
    if isinstance(node, BinaryExpr):
        return _combined(node, known)
    if isinstance(node, Call):
        return _called(node, known)
    if isinstance(node, (NumberLiteral, StringLiteral)):
        return Labels()
    raise NotImplementedError(type(node).__name__)


def _selected(node: VectorSelector, known: Mapping[str, Labels]) -> Labels:
    if node.name is None or node.name not in known:
        raise Fault(f"no such metric: {node.name}")
    there = known[node.name] | TARGET
    _require({matcher.name for matcher in node.matchers.matchers}, there, node)
    return there


def _aggregated(node: AggregateExpr, known: Mapping[str, Labels]) -> Labels:
    there = _labels(node.expr, known)
    if node.modifier is None:
        return Labels()
    _require(set(node.modifier.labels), there, node)
    chosen = Labels(node.modifier.labels)
    return there - chosen if node.modifier.type == AggModifierType.Without else chosen


def _combined(node: BinaryExpr, known: Mapping[str, Labels]) -> Labels:
    left, right = _labels(node.lhs, known), _labels(node.rhs, known)
    if not left or not right:  # A number has no labels.
        return left | right
    if str(node.op) == "or":
        return left | right
    matching = node.modifier.matching if node.modifier else None
    if matching:
        _require(set(matching.labels), left | right, node)
    on = left | right
    if matching:
        chosen = Labels(matching.labels)
        on = on & chosen if matching.type == LabelModifierType.Include else on - chosen
    if left & on != right & on:
        raise Fault(f"one side alone has {sorted((left ^ right) & on)}: {node.prettify()}")
    many = node.modifier is not None and node.modifier.card != VectorMatchCardinality.OneToOne
    return left if many or str(node.op) in ("and", "unless") else left & on


def _called(node: Call, known: Mapping[str, Labels]) -> Labels:
    arguments: list[Any] = node.args
    there = Labels().union(*(_labels(argument, known) for argument in arguments))
    return there - {"le"} if node.func.name == "histogram_quantile" else there


def _require(labels: set[str], there: Labels, node: Expr) -> None:
    if labels - there:
        raise Fault(f"no such label: {sorted(labels - there)} in {node.prettify()}")
