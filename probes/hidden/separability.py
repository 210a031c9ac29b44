"""Can a line through the hidden states of completions tell the rewarded from the others?"""

from __future__ import annotations

import numpy as np

from layerpick.training.errors import LayerpickError

FOLDS = 5


def separability(hidden: np.ndarray, rewards: np.ndarray, prompts: np.ndarray) -> float:
    """Area under the ROC curve, in [0, 1], 0.5 by chance, of ridge with prompts left out in turn.

    hidden (n, width), rewards (n,), prompts (n,): which prompt each completion answers. A
    completion counts as rewarded when it earns more than its prompt's mean; completions of
    prompts on which all earn the same are not used. Hidden states are taken relative to their
    prompt's mean, so that only what differs between answers to one prompt can help; the penalty
    is the width of the standardised hidden state.

    Raises LayerpickError when fewer than two prompts have completions that differ.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    better = rewards - _group_means(rewards, prompts)
    useful = np.isin(prompts, prompts[np.abs(better) > 1e-12])
    count = len(np.unique(prompts[useful]))
    if count < 2:
        raise LayerpickError("fewer than two prompts have completions that earn differently")
    relative = (hidden - _group_means(hidden, prompts))[useful]
    labels = better[useful] > 0
    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=hidden.shape[1]))
    decisions = cross_val_predict(
        classifier,
        relative,
        labels,
        groups=prompts[useful],
        cv=GroupKFold(min(FOLDS, count)),
        method="decision_function",
    )
    return float(roc_auc_score(labels, decisions))


def _group_means(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Each row's mean over the rows of its group."""
    names, index = np.unique(groups, return_inverse=True)
    sums = np.zeros((len(names), *values.shape[1:]))
    np.add.at(sums, index, values)
    sizes = np.bincount(index).reshape(-1, *[1] * (values.ndim - 1))
    return (sums / sizes)[index]
