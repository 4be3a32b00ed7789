"""Losses of a network that tells classes apart."""

import jittor as jt


def negative_log_likelihood(logits: jt.Var, shares: jt.Var) -> jt.Var:
    """Cross-entropy of scores [B, C, h, w] against the share of each class in each cell [B, C, h, w], summed over all cells."""
    logits = logits - logits.max(dim=1, keepdims=True)
    return -(shares * (logits - logits.exp().sum(dim=1, keepdims=True).log())).sum()
