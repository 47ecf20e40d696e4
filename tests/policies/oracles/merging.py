"""The affine merge written a second time: float64 numpy, one head, one slot at a time, from the formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from oracles.naive import Array, Setup, place, rotate, softmax


@dataclass
class Slots:
    """One head before or after a merge: keys un-rotated, positions as generated."""

    tokens: list[int]
    keys: Array
    values: Array
    log_mass: Array


def turned(slots: Slots, setup: Setup) -> Array:
    return np.array(
        [
            rotate(key, *place(token, setup), setup)
            for key, token in zip(slots.keys, slots.tokens, strict=True)
        ]
    )


def future_rows(queries: Array, setup: Setup, *, last_time: int) -> Array:
    """The mean query of each position, rotated to every row of the horizon, (horizon * P, D)."""
    proxy = queries.reshape(-1, setup.frame, queries.shape[1]).mean(0)
    return np.array(
        [
            rotate(query, last_time + ahead, *place(number, setup)[1:], setup)
            for ahead in range(1, setup.horizon + 1)
            for number, query in enumerate(proxy)
        ]
    )


def attention(rows: Array, keys: Array, bias: Array) -> Array:
    return np.array([softmax(keys @ row / math.sqrt(len(row)) + bias) for row in rows])


def merged(
    slots: Slots,
    kept: list[int],
    rows: Array,
    setup: Setup,
    *,
    ridge: float,
    key: str,
    bias: str,
    only_cheaper: bool,
) -> tuple[Slots, int]:
    """Merge what is not in ``kept`` into what is; return the survivors and how many slots were taken in."""
    dim = slots.keys.shape[1]
    keys, values = turned(slots, setup), slots.values
    mass = attention(rows, keys, slots.log_mass).mean(0)
    mean = rows.mean(0)
    covariance = np.cov(rows.T, bias=True)
    covariance = covariance + ridge * np.trace(covariance) / dim * np.eye(dim)
    groups: dict[int, list[int]] = {i: [i] for i in kept}
    for j in sorted(set(range(len(keys))) - set(kept)):
        squared = {i: (keys[i] - keys[j]) @ covariance @ (keys[i] - keys[j]) / dim for i in kept}
        i = min(squared, key=squared.__getitem__)
        costs = pair_costs(mass[i], mass[j], values[i], values[j], output=mass @ values, squared=squared[i])
        if not only_cheaper or costs[0] < costs[1]:
            groups[i].append(j)
    u = np.linalg.solve(covariance + np.outer(mean, mean), mean)
    out = Slots([], [], [], [])
    for i, group in groups.items():
        shares = mass[group] / mass[group].sum()
        new = shares @ keys[group] if key == "tangent" else keys[i]
        before = slots.log_mass[group] if bias == "explicit" else np.zeros(len(group))
        added = shares @ (before - np.log(shares)) if key == "tangent" else before[0] - math.log(shares[0])
        if bias == "absorbed":
            new = new + added * math.sqrt(dim) * u
        time, row, column = place(slots.tokens[i], setup)
        out.tokens.append(slots.tokens[i])
        out.keys.append(rotate(new, -time, -row, -column, setup))
        out.values.append(shares @ values[group])
        out.log_mass.append(added if bias == "explicit" else 0.0)
    merges = sum(len(group) - 1 for group in groups.values())
    return Slots(out.tokens, *(np.array(x) for x in (out.keys, out.values, out.log_mass))), merges


def pair_costs(
    mass_i: float, mass_j: float, value_i: Array, value_j: Array, *, output: Array, squared: float
) -> tuple[float, float]:
    """Mean squared error of the output after a merge and after an eviction, to leading order."""
    both = mass_i + mass_j
    w_i, w_j = mass_i / both, mass_j / both
    middle = w_i * value_i + w_j * value_j
    first = w_i**2 * w_j**2 * squared * np.sum((value_i - value_j) ** 2)
    second = 3 * (0.5 * w_i * w_j * squared) ** 2 * np.sum((middle - output) ** 2)
    return both**2 * (first + second), mass_j**2 * np.sum((value_j - output) ** 2) / (1 - mass_j) ** 2
