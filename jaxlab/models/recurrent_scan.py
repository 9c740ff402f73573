"""The recurrences of LSTM and GRU over whole sequences, with gradients of their own.

Only ``h @ kernel`` is left in the time loop: the inputs' projections come in as one array. Where a gradient is wanted,
the forward loop leaves the gates' local derivatives in the place of these projections, and the backward loop multiplies
them by what comes from behind, in place again: that array is the largest, and fresh memory costs as much as arithmetic.
The kernel's gradient is one matrix product over all steps, where differentiating the loop would add up one a step. The
results are those of the plain loop. Reverse-mode derivatives only, of the first order.
Shape letters: T steps, B batch, H features, G gates side by side (4 H or 3 H).
Usage: ``y_TBH, h_BH, c_BH = lstm_scan(False, x_TBG, kernel_HG, h_BH, c_BH, mask_TB1)``.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxlab.core.mesh import rows_are_split
from jaxlab.core.types import Array

Residuals = tuple[Any, ...]


def _row(x_T: Array, t: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(x_T, t, 0, keepdims=False)


def _put(x_T: Array, row: Array, t: Array) -> Array:
    return jax.lax.dynamic_update_index_in_dim(x_T, row.astype(x_T.dtype), t, 0)


def _keep(mask: Array | None, new: Array, old: Array | float) -> Array:
    """Return `new` where the mask says that there is a step, else `old`."""
    return new if mask is None else jnp.where(mask, new, old)


def _before(h_TBH: Array, first_BH: Array, reverse: bool) -> Array:
    """Return the state that each step found."""
    if reverse:
        return jnp.concatenate([h_TBH[1:], first_BH[None]])
    return jnp.concatenate([first_BH[None], h_TBH[:-1]])


def _kernel_gradient(before_TBH: Array, gradient_TBG: Array) -> Array:
    """Return the sum over steps and rows as one product [H, G]."""
    if rows_are_split():
        return jnp.einsum("TBH,TBG->HG", before_TBH, gradient_TBG)
    return before_TBH.reshape(-1, before_TBH.shape[-1]).T @ gradient_TBG.reshape(-1, gradient_TBG.shape[-1])


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    """Gates and the LSTM's cell are computed in float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def lstm_scan(
    reverse: bool, x_TBG: Array, kernel_HG: Array, h_BH: Array, c_BH: Array, mask_TB1: Array | None
) -> tuple[Array, Array, Array]:
    """Return the states after each step [T, B, H], the last one's [B, H], and its cell [B, H].

    ``i, f, g, o = split(x + h @ kernel)``, ``c = sigmoid(f) * c + sigmoid(i) * tanh(g)``, ``h = sigmoid(o) * tanh(c)``.

    Args:
      reverse: whether to go from the last step to the first.
      x_TBG: projected inputs, biases included; gates in the order input, forget, cell, output.
      kernel_HG: the recurrent kernel.
      h_BH: the state before the first step.
      c_BH: the cell before the first step, float32 or wider.
      mask_TB1: bool; a step where it is false leaves state and cell as they are. None for all steps.
    """
    return _lstm_forward(reverse, False, x_TBG, kernel_HG, h_BH, c_BH, mask_TB1)[:3]


def _lstm_forward(
    reverse: bool, save: bool, x_TBG: Array, kernel_HG: Array, h_BH: Array, c_BH: Array, mask_TB1: Array | None
) -> tuple[Array, Array, Array, Array, tuple[Array, Array] | None]:
    """Return states, last state, last cell, and to `save` the derivatives of gates, and of cells by state and cell."""

    def step(carry: Any, at: Any) -> Any:
        (h, c, slopes_TBG), (t, mask) = carry, at
        z = _row(slopes_TBG, t) + h @ kernel_HG
        i, f, g, o = jnp.split(z.astype(c.dtype), 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        new_c = f * c + i * g
        tanh_c = jnp.tanh(new_c)
        new_h = o * tanh_c
        saved = None
        if save:
            slopes = jnp.concatenate([g * i * (1 - i), c * f * (1 - f), i * (1 - g * g), new_h * (1 - o)], axis=-1)
            slopes_TBG = _put(slopes_TBG, _keep(mask, slopes, 0.0), t)
            saved = _keep(mask, o * (1 - tanh_c * tanh_c), 0.0), _keep(mask, f, 1.0)
        h = _keep(mask, new_h.astype(h.dtype), h)
        return (h, _keep(mask, new_c, c), slopes_TBG), (h, saved)

    steps = (jnp.arange(len(x_TBG)), mask_TB1)
    (h_BH, c_BH, slopes_TBG), (y_TBH, saved) = jax.lax.scan(step, (h_BH, c_BH, x_TBG), steps, reverse=reverse)
    return y_TBH, h_BH, c_BH, slopes_TBG, saved


def _lstm_saved(
    reverse: bool, x_TBG: Array, kernel_HG: Array, h_BH: Array, c_BH: Array, mask_TB1: Array | None
) -> tuple[tuple[Array, Array, Array], Residuals]:
    *results, slopes_TBG, saved = _lstm_forward(reverse, True, x_TBG, kernel_HG, h_BH, c_BH, mask_TB1)
    return tuple(results), (results[0], h_BH, slopes_TBG, saved, kernel_HG, mask_TB1)


def _lstm_backward(reverse: bool, saved: Residuals, gradients: tuple[Array, Array, Array]) -> tuple[Array | None, ...]:
    y_TBH, first_BH, slopes_TBG, (by_state_TBH, by_cell_TBH), kernel_HG, mask_TB1 = saved
    dy_TBH, dh_BH, dc_BH = gradients
    kernel_GH = kernel_HG.T

    def step(carry: Any, at: Any) -> Any:
        (dh, dc, dx_TBG), (t, dy, by_state, by_cell, mask) = carry, at
        i, f, g, o = jnp.split(_row(dx_TBG, t), 4, axis=-1)
        dh = dh + dy
        dc = dc + dh * by_state
        dx = jnp.concatenate([i * dc, f * dc, g * dc, o * dh], axis=-1).astype(dx_TBG.dtype)
        past_dh = dx @ kernel_GH if mask is None else dx @ kernel_GH + jnp.where(mask, 0, dh)
        return (past_dh, dc * by_cell, _put(dx_TBG, dx, t)), None

    steps = (jnp.arange(len(y_TBH)), dy_TBH, by_state_TBH, by_cell_TBH, mask_TB1)
    carry = (dh_BH, dc_BH, slopes_TBG)
    (dh_BH, dc_BH, dx_TBG), _ = jax.lax.scan(step, carry, steps, reverse=not reverse)
    return dx_TBG, _kernel_gradient(_before(y_TBH, first_BH, reverse), dx_TBG), dh_BH, dc_BH, None


lstm_scan.defvjp(_lstm_saved, _lstm_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def gru_scan(
    reverse: bool, x_TBG: Array, kernel_HG: Array, bias_H: Array, h_BH: Array, mask_TB1: Array | None
) -> tuple[Array, Array]:
    """Return the states after each step [T, B, H], and the last one's [B, H].

    ``r, z = sigmoid(x + h @ kernel)``, ``n = tanh(x + r * (h @ kernel + bias))``, ``h = (1 - z) * n + z * h``.

    Args:
      reverse: whether to go from the last step to the first.
      x_TBG: projected inputs, biases included; gates in the order reset, update, new.
      kernel_HG: the recurrent kernel.
      bias_H: added to the recurrent part of the new state, before the reset gate.
      h_BH: the state before the first step.
      mask_TB1: bool; a step where it is false leaves the state as it is. None for all steps.
    """
    return _gru_forward(reverse, False, x_TBG, kernel_HG, bias_H, h_BH, mask_TB1)[:2]


def _gru_forward(
    reverse: bool, save: bool, x_TBG: Array, kernel_HG: Array, bias_H: Array, h_BH: Array, mask_TB1: Array | None
) -> tuple[Array, Array, Array, tuple[Array, Array] | None]:
    """Return states, last state, and to `save` the derivatives of gates, and the reset and update gates."""
    width, dtype = h_BH.shape[-1], _wide(h_BH.dtype)

    def step(carry: Any, at: Any) -> Any:
        (h, slopes_TBG), (t, mask) = carry, at
        x, recurrent = _row(slopes_TBG, t).astype(dtype), (h @ kernel_HG).astype(dtype)
        r, z = jnp.split(jax.nn.sigmoid(x[:, : 2 * width] + recurrent[:, : 2 * width]), 2, axis=-1)
        inner = recurrent[:, 2 * width :] + bias_H
        n = jnp.tanh(x[:, 2 * width :] + r * inner)
        saved = None
        if save:
            by_n = (1 - z) * (1 - n * n)
            slopes = jnp.concatenate([by_n * inner * r * (1 - r), (h - n) * z * (1 - z), by_n], axis=-1)
            slopes_TBG = _put(slopes_TBG, _keep(mask, slopes, 0.0), t)
            saved = r.astype(h.dtype), _keep(mask, z, 1.0).astype(h.dtype)
        h = _keep(mask, ((1 - z) * n + z * h).astype(h.dtype), h)
        return (h, slopes_TBG), (h, saved)

    steps = (jnp.arange(len(x_TBG)), mask_TB1)
    (h_BH, slopes_TBG), (y_TBH, saved) = jax.lax.scan(step, (h_BH, x_TBG), steps, reverse=reverse)
    return y_TBH, h_BH, slopes_TBG, saved


def _gru_saved(
    reverse: bool, x_TBG: Array, kernel_HG: Array, bias_H: Array, h_BH: Array, mask_TB1: Array | None
) -> tuple[tuple[Array, Array], Residuals]:
    *results, slopes_TBG, saved = _gru_forward(reverse, True, x_TBG, kernel_HG, bias_H, h_BH, mask_TB1)
    return tuple(results), (results[0], h_BH, slopes_TBG, saved, kernel_HG, bias_H)


def _gru_backward(reverse: bool, saved: Residuals, gradients: tuple[Array, Array]) -> tuple[Array | None, ...]:
    y_TBH, first_BH, slopes_TBG, (r_TBH, z_TBH), kernel_HG, bias_H = saved
    dy_TBH, dh_BH = gradients
    kernel_GH, width = kernel_HG.T, dh_BH.shape[-1]

    def step(dh: Array, at: Any) -> Any:
        dy, slopes, r, z = at
        dh = dh + dy
        dr, dz, dn = (slope * dh for slope in jnp.split(slopes, 3, axis=-1))
        d_inner = dn * r
        past_dh = dh * z + jnp.concatenate([dr, dz, d_inner], axis=-1) @ kernel_GH
        return past_dh, (jnp.concatenate([dr, dz, dn], axis=-1), d_inner)

    steps = (dy_TBH, slopes_TBG, r_TBH, z_TBH)
    dh_BH, (dx_TBG, d_inner_TBH) = jax.lax.scan(step, dh_BH, steps, reverse=not reverse)
    before_TBH = _before(y_TBH, first_BH, reverse)
    parts = [_kernel_gradient(before_TBH, part) for part in (dx_TBG[..., : 2 * width], d_inner_TBH)]
    d_bias_H = d_inner_TBH.sum(axis=(0, 1), dtype=_wide(bias_H.dtype)).astype(bias_H.dtype)
    return dx_TBG, jnp.concatenate(parts, axis=-1), d_bias_H, dh_BH, None


gru_scan.defvjp(_gru_saved, _gru_backward)
