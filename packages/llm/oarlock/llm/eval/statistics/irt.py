"""Item response theory: how hard items are, how well they tell models apart, how able models are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

NODES = 41


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemResponse:
    """A fitted model of N respondents and J items.

    Args:
        difficulty: b_J, the ability at which half of the answers are right.
        discrimination: a_J, above 0.
        ability: expected θ_N given the answers.
        difficulty_error, ability_error: standard errors, prior included: where they are near 1 (the prior's own), the
            answers say nothing.
        log_likelihood: of the answers, abilities integrated out.
        iterations: until it stood still.
    """

    difficulty: NDArray[np.float64]
    discrimination: NDArray[np.float64]
    ability: NDArray[np.float64]
    difficulty_error: NDArray[np.float64]
    ability_error: NDArray[np.float64]
    log_likelihood: float
    iterations: int


def fit_2pl(
    answers: ArrayLike | Sequence[Sequence[float]],
    *,
    discrimination: float | None = None,
    max_iterations: int = 500,
    tolerance: float = 1e-5,
) -> ItemResponse:
    """Two-parameter logistic model, P(right) = 1 / (1 + exp(-a_j (θ_i - b_j))), by marginal maximum likelihood.

    Abilities are normal, N(0, 1), and integrated out over 41 nodes; items are found by expectation maximisation with
    Newton's method inside, under priors that matter only where answers are few: log a ~ N(0, 0.5²),
    a·b ~ N(0, 3²). Few models say little of an item: look at the errors, and think of checkpoints, prompt variants and
    sampled answers as respondents.

    Args:
        answers: 1 for right, 0 for wrong, NaN for not asked, [N, J].
        discrimination: hold a at this value for all items (1 gives the Rasch model); None to find it.
        max_iterations: of expectation maximisation.
        tolerance: largest change of a parameter at which it stands still.

    Raises:
        ValueError: answers are something else, fewer than two respondents, or an item nobody was asked.
        RuntimeError: it did not stand still in time.

    Source: Bock and Aitkin 1981.
    """
    y_NJ = np.asarray(answers, np.float64)
    if y_NJ.ndim != 2 or y_NJ.shape[0] < 2 or y_NJ.shape[1] < 1:
        raise ValueError(f"answers must be [N >= 2, J >= 1], got {y_NJ.shape}.")
    asked_NJ = ~np.isnan(y_NJ)
    if not np.isin(y_NJ[asked_NJ], (0, 1)).all():
        raise ValueError("answers must be 0, 1 or NaN.")
    if not asked_NJ.any(0).all():
        raise ValueError(f"answers of item {int(np.argmin(asked_NJ.any(0)))} are all NaN.")
    if discrimination is not None and not discrimination > 0:
        raise ValueError(f"discrimination must be above 0, got {discrimination}.")
    nodes_Q, weights_Q = np.polynomial.hermite_e.hermegauss(NODES)
    log_weights_Q = np.log(weights_Q / weights_Q.sum())
    right_NJ = np.where(asked_NJ, y_NJ, 0.0)
    J = y_NJ.shape[1]
    log_a_J = np.full(J, np.log(discrimination or 1.0))
    d_J = np.zeros(J)  # intercept, -a b
    for iteration in range(1, max_iterations + 1):
        joint_NQ = _log_likelihoods(right_NJ, asked_NJ, log_a_J, d_J, nodes_Q) + log_weights_Q
        posterior_NQ, _ = _normalised(joint_NQ)
        n_JQ = asked_NJ.T.astype(float) @ posterior_NQ
        r_JQ = right_NJ.T @ posterior_NQ
        before = np.concatenate([log_a_J, d_J])
        log_a_J, d_J, curvature_J22 = _maximise(
            n_JQ, r_JQ, log_a_J, d_J, nodes_Q, free=discrimination is None
        )
        if np.abs(np.concatenate([log_a_J, d_J]) - before).max() < tolerance:
            break
    else:
        raise RuntimeError(f"no standstill after {max_iterations} iterations; allow more.")
    joint_NQ = _log_likelihoods(right_NJ, asked_NJ, log_a_J, d_J, nodes_Q) + log_weights_Q
    posterior_NQ, evidence_N = _normalised(joint_NQ)
    ability_N = posterior_NQ @ nodes_Q
    a_J = np.exp(log_a_J)
    b_J = -d_J / a_J
    covariance_J22 = np.linalg.inv(curvature_J22)
    # b = -d exp(-log a): its gradient by (log a, d) is (-b, -1/a)
    gradient_J2 = np.stack([-b_J, -1 / a_J], -1)
    error_J = np.sqrt(np.einsum("ji,jik,jk->j", gradient_J2, covariance_J22, gradient_J2))
    return ItemResponse(
        difficulty=b_J,
        discrimination=a_J,
        ability=ability_N,
        difficulty_error=error_J,
        ability_error=np.sqrt(posterior_NQ @ nodes_Q**2 - ability_N**2),
        log_likelihood=float(evidence_N.sum()),
        iterations=iteration,
    )


def _log_likelihoods(right_NJ, asked_NJ, log_a_J, d_J, nodes_Q):  # type: ignore[no-untyped-def]
    z_JQ = np.exp(log_a_J)[:, None] * nodes_Q + d_J[:, None]
    log_right_JQ, log_wrong_JQ = -np.logaddexp(0, -z_JQ), -np.logaddexp(0, z_JQ)
    return right_NJ @ log_right_JQ + (asked_NJ - right_NJ) @ log_wrong_JQ


def _normalised(joint_NQ):  # type: ignore[no-untyped-def]
    top_N1 = joint_NQ.max(1, keepdims=True)
    p_NQ = np.exp(joint_NQ - top_N1)
    total_N1 = p_NQ.sum(1, keepdims=True)
    return p_NQ / total_N1, (top_N1 + np.log(total_N1))[:, 0]


def _maximise(n_JQ, r_JQ, log_a_J, d_J, nodes_Q, *, free):  # type: ignore[no-untyped-def]
    """Newton's method for all items at once; also the curvature at the end, [J, 2, 2]."""
    for _ in range(25):
        a_J = np.exp(log_a_J)
        z_JQ = a_J[:, None] * nodes_Q + d_J[:, None]
        p_JQ = 1 / (1 + np.exp(-z_JQ))
        residual_JQ, w_JQ = r_JQ - n_JQ * p_JQ, n_JQ * p_JQ * (1 - p_JQ)
        g_a = a_J * (residual_JQ @ nodes_Q) - log_a_J / 0.25
        g_d = residual_JQ.sum(1) - d_J / 9.0
        # expected curvature: positive definite, so each step goes up
        h_aa = a_J**2 * (w_JQ @ nodes_Q**2) + 1 / 0.25
        h_ad = a_J * (w_JQ @ nodes_Q)
        h_dd = w_JQ.sum(1) + 1 / 9.0
        if not free:
            g_a, h_aa, h_ad = 0 * g_a, np.full_like(h_aa, 1e12), 0 * h_ad
        determinant = h_aa * h_dd - h_ad**2
        step_a = np.clip((h_dd * g_a - h_ad * g_d) / determinant, -0.5, 0.5)
        step_d = np.clip((h_aa * g_d - h_ad * g_a) / determinant, -1, 1)
        log_a_J, d_J = log_a_J + step_a, d_J + step_d
        if max(np.abs(step_a).max(), np.abs(step_d).max()) < 1e-8:
            break
    curvature = np.stack([np.stack([h_aa, h_ad], -1), np.stack([h_ad, h_dd], -1)], -2)
    return log_a_J, d_J, curvature
