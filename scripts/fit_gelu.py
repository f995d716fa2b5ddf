"""Make the numbers of mixer_mlx/ops/activations.py: `python scripts/fit_gelu.py` (numpy, scipy).

Prints the four `_Fit` tables of that file and, for each, the greatest error of the fit in exact
arithmetic. It takes some ten seconds. Another version of scipy may end with slightly other
numbers of the same quality.

With a = |x| and Q(a) = 1 - Phi(a), the weight that GELU takes away (Phi is the normal distribution
or its tanh stand-in), two bumps that vanish at infinity are fitted:

    a Q(a)            = u**3 w P(w)**power              GELU(x)  = max(0, x) - this
    Q(a) + a Q'(a)    = u**2 (zero - w) P(w)**power     GELU'(x) = this, or 1 - this where x > 0
    where u = max(0, reach - a) / (a + bend), w = min(reach, a) / (a + bend), P has degree 5

For a fixed reach and bend the best P is found by linear programs, each for the fit made linear
around the last one; Nelder and Mead's search then moves reach and bend.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.polynomial import chebyshev, polynomial
from scipy.optimize import brentq, linprog, minimize
from scipy.special import erfc, expit

DEGREE = 5
Tail = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Problem(NamedTuple):
    """A bump to fit: its name, Q with its derivative, and the power of P."""

    name: str
    tail: Tail
    power: int
    is_slope: bool


class Solution(NamedTuple):
    """Coefficients of P in ascending powers of w, and the greatest error."""

    reach: float
    bend: float
    zero: float
    coefficients: np.ndarray
    error: float


def erf_tail(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q and Q' of the normal distribution."""
    return erfc(a / np.sqrt(2)) / 2, -np.exp(-(a**2) / 2) / np.sqrt(2 * np.pi)


def tanh_tail(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Q and Q' for Phi(x) = (1 + tanh(z)) / 2, which is the logistic function of 2z."""
    scale = 2 * np.sqrt(2 / np.pi)
    z2 = scale * (a + 0.044715 * a**3)
    q = expit(-z2)
    return q, -q * expit(z2) * scale * (1 + 3 * 0.044715 * a**2)


def target(problem: Problem, a: np.ndarray) -> np.ndarray:
    q, dq = problem.tail(a)
    return q + a * dq if problem.is_slope else a * q


def best_polynomial(problem: Problem, reach: float, bend: float, points: int) -> Solution:
    """The P of least greatest error for this reach and bend."""
    inside = reach * (1 - np.cos(np.linspace(0, np.pi, points))) / 2
    a = np.concatenate([inside, reach + np.linspace(0.1, 1, 10)])
    u = np.maximum(0, reach - a) / (a + bend)
    w = np.minimum(reach, a) / (a + bend)
    w_max = reach / (reach + bend)
    goal = target(problem, a)

    zero = 0.0
    if problem.is_slope:
        root = brentq(lambda r: float(target(problem, np.array(r))), 0.5, 1.0)
        zero = root / (root + bend)
    weight = u**2 * (zero - w) if problem.is_slope else u**3 * w

    # Chebyshev polynomials of 2 w / w_max - 1 keep the linear programs well conditioned.
    basis = chebyshev.chebvander(2 * w / w_max - 1, DEGREE)
    usable = (a < 0.98 * reach) & (np.abs(goal) > 1e-9)
    root_goal = np.zeros_like(a)
    root_goal[usable] = np.abs(goal[usable] / weight[usable]) ** (1 / problem.power)
    importance = np.abs(weight) * np.maximum(root_goal, 0.02 * root_goal.max()) ** (
        problem.power - 1
    )
    rows = usable & (importance > 0)
    start = np.linalg.lstsq(
        basis[rows] * importance[rows, None], root_goal[rows] * importance[rows], rcond=None
    )[0]
    c, error = minimax(basis, weight, goal, problem.power, start)

    in_t = chebyshev.cheb2poly(c)
    in_w = polynomial.Polynomial(in_t)(polynomial.Polynomial([-1, 2 / w_max])).coef
    return Solution(reach, bend, zero, in_w, error)


def minimax(
    basis: np.ndarray, weight: np.ndarray, goal: np.ndarray, power: int, c: np.ndarray
) -> tuple[np.ndarray, float]:
    """Lower max |weight (basis c)**power - goal| step by step, each step a linear program."""

    def errors(c: np.ndarray) -> np.ndarray:
        return weight * (basis @ c) ** power - goal

    worst, limit = float(np.abs(errors(c)).max()), 1e3
    for _ in range(30):
        error = errors(c)
        slope = (weight * power * (basis @ c) ** (power - 1))[:, None] * basis
        # Steps in units of what each coefficient does, errors in units of the present worst.
        unit = worst / np.maximum(np.abs(slope).max(0), 1e-12)
        slope, error = slope * unit / worst, error / worst
        ones = np.ones((len(error), 1))
        step = linprog(
            np.r_[np.zeros(len(c)), 1],
            A_ub=np.block([[slope, -ones], [-slope, -ones]]),
            b_ub=np.r_[-error, error],
            bounds=[(-limit, limit)] * len(c) + [(0, None)],
            method="highs",
        ).x
        tried = c if step is None else c + step[:-1] * unit
        now = float(np.abs(errors(tried)).max())
        if now < worst:
            done = worst - now < 1e-3 * worst
            c, worst = tried, now
            if done:
                break
        else:
            limit /= 10
    return c, worst


def fit(problem: Problem) -> Solution:
    """The best of two searches over reach and bend."""

    def log_error(log_shape: np.ndarray) -> float:
        reach, bend = np.exp(log_shape)
        if not (4 < reach < 12 and 0.3 < bend < 150):
            return 0.0
        return float(np.log(best_polynomial(problem, reach, bend, 160).error))

    found = []
    for reach, bend in ((5.0, 6.0), (5.5, 14.0)):
        simplex = np.log([[reach, bend], [reach * 1.08, bend], [reach, bend * 1.5]])
        found.append(
            minimize(
                log_error,
                simplex[0],
                method="Nelder-Mead",
                options={"maxfev": 80, "initial_simplex": simplex},
            )
        )
    reach, bend = np.exp(min(found, key=lambda f: f.fun).x)
    # Few digits for the two shapes; P is then fitted to the rounded ones.
    return best_polynomial(problem, round(reach, 3), round(bend, 3), 500)


def main() -> None:
    for problem in (
        Problem("_ERF", erf_tail, 8, False),
        Problem("_ERF_SLOPE", erf_tail, 8, True),
        Problem("_TANH", tanh_tail, 3, False),
        Problem("_TANH_SLOPE", tanh_tail, 3, True),
    ):
        s = fit(problem)
        numbers = ", ".join(f"{c:.7g}" for c in s.coefficients)
        zero = f", {s.zero:.7g}" if problem.is_slope else ""
        print(f"{problem.name} = _Fit({s.reach}, {s.bend}, {problem.power}, ({numbers}){zero})")
        print(f"# greatest error {s.error:.1e}")


if __name__ == "__main__":
    main()
