"""What a policy's state costs, in tokens of the budget."""

from __future__ import annotations

import dataclasses

import torch

from policies.base import Budget, Policy, Protocol, Shape


def charged(
    policy: Policy, shape: Shape, budget: Budget, protocol: Protocol, *, batch: int, dtype: torch.dtype
) -> Budget:
    """Return the budget after the policy's state has been paid for, where the protocol asks so.

    A slot costs 2 * D elements (key and value) and, with ``charge_state``, 4 bytes per slot state; what the
    policy holds outside slots is spread over all slots. The result never holds more bytes than the budget.
    For a full cache there is no budget.
    """
    if policy.is_full:
        return Budget(None)
    if not protocol.charge_state or budget.tokens is None:
        return budget
    itemsize = torch.empty((), dtype=dtype).element_size()
    slot = 2 * shape.head_dim * itemsize
    columns = batch * shape.layers * shape.heads
    free = budget.tokens * slot - policy.held_nbytes(shape, batch) / columns
    tokens = int(free // (slot + 4 * len(policy.states)))
    if tokens < 1:
        raise ValueError(
            f"policy '{policy.name}': its state alone exceeds a budget of {budget.tokens} tokens"
        )
    return dataclasses.replace(budget, tokens=tokens)
