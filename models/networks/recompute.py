"""Gradient checkpointing (Chen et al. 2016): what a block computes on the way is not kept for the gradient, but computed again in it.

    with recomputation(True):
        y = recomputed(block, x)  # as block(x), in the memory of x and the time of a second forward pass

Sync the loss before asking for its gradient: Jittor would run both passes as one graph, in an order that holds more at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import jittor as jt

from models.networks.layers import autocast, compute_dtype

_recompute = False


@contextmanager
def recomputation(wanted: bool) -> Iterator[None]:
    """Inside, `recomputed` does what it says if `wanted`."""
    global _recompute
    outside, _recompute = _recompute, wanted
    try:
        yield
    finally:
        _recompute = outside


def recomputing() -> bool:
    """What `recomputation` is set to."""
    return _recompute


def recomputed(module: jt.Module, *inputs) -> jt.Var:
    """module(*inputs), one Var; within `recomputation`, as a block of which only the inputs are kept. Vars of integers get no
    gradient, and what is no Var is passed on."""
    if not _recompute or jt.flags.no_grad:
        return module(*inputs)
    present = [i for i, x in enumerate(inputs) if isinstance(x, jt.Var)]

    def compute(*given: jt.Var) -> jt.Var:
        arguments = list(inputs)
        for i, x in zip(present, given, strict=True):
            arguments[i] = x
        return module(*arguments)

    parameters = [parameter for parameter in module.parameters() if not parameter.is_stop_grad()]
    # Jittor asks for no gradient of a function none of whose inputs has one
    given = [x.clone().start_grad() if x.is_stop_grad() and is_float(x) else x for x in (inputs[i] for i in present)]
    return Recomputed(compute, parameters)(*given, *parameters)


def is_float(x: jt.Var) -> bool:
    return "float" in str(x.dtype)


class Recomputed(jt.Function):
    """compute(*inputs), called with its parameters behind the inputs: its gradient by all of them computes it again."""

    def __init__(self, compute, parameters: list[jt.Var]):
        self._compute, self._weights = compute, parameters  # what a Function is called with are copies
        self._dtype = compute_dtype()  # the gradient is taken outside of `autocast`

    def execute(self, *variables: jt.Var) -> jt.Var:
        self._given = [x.detach() for x in variables[: len(variables) - len(self._weights)]]
        with jt.no_grad():
            return self._compute(*self._given).start_grad()

    def grad(self, dy: jt.Var) -> tuple[jt.Var, ...]:
        dy = dy.detach()  # cut off from the graph around: nothing is differentiated twice
        # The recomputation waits for dy: done as soon as it could be, it would be no recomputation.
        inputs = [x.clone()._add_dependency([dy]) for x in self._given]
        wanted = [x.start_grad() for x in inputs if is_float(x)]
        self._given = None
        with autocast(self._dtype), recomputation(False):  # once is enough for the blocks within
            y = self._compute(*inputs)
        gradients = iter(jt.grad(WithGradient(dy)(y), [*wanted, *self._weights], retain_graph=False))
        return tuple(next(gradients).stop_grad() if is_float(x) else None for x in (*inputs, *self._weights))


class WithGradient(jt.Function):
    """A scalar whose derivative by y is dy. Unlike (y · dy).sum() it needs no y, which then is not even computed."""

    def __init__(self, dy: jt.Var):
        self._dy = dy

    def execute(self, y: jt.Var) -> jt.Var:
        return jt.zeros(1)

    def grad(self, _: jt.Var) -> jt.Var:
        return self._dy
