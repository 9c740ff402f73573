"""What each part of the digits CNN is worth: dropout, augmentation, batch norm and width, each left out alone.

jaxlab study --study=experiments/digits_ablation/study.py --workdir=studies/digits_ablation --executor=vmap

50 runs, about 20 min on 2 CPU cores. README.md has the question and the prediction, REPORT.md the
answer (`jaxlab report --workdir=studies/digits_ablation --output=experiments/digits_ablation`).
"""

from pathlib import Path

import jaxlab
from jaxlab.study.grid import leave_one_out

CONFIGS = Path(__file__).parents[2] / "configs"
SCIKIT_LEARN = (
    "of scikit-learn 1.9.1 on all 1,797 digits, `cross_val_score` with "
    "`StratifiedKFold(10, shuffle=True, random_state=0)`: another split than ours"
)


def get_study() -> jaxlab.Study:
    """Return the ablation over ten seeds."""
    return jaxlab.Study(
        base=jaxlab.load_config(CONFIGS / "digits_cnn.py"),
        arms=leave_one_out(
            {"model.dropout": 0.0},
            {"data.augment": ()},
            {"model.batch_norm": False},
            {"model.channels": (16, 32), "model.hidden": (64,)},
        ),
        seeds=range(10),
        metric="test/accuracy",
        smallest=0.005,
        published=(
            jaxlab.Published("scikit-learn SVC, 10-fold", 0.9905, f"`SVC(gamma=0.001)` {SCIKIT_LEARN}"),
            jaxlab.Published("logistic regression, 10-fold", 0.9672, f"scaled, `LogisticRegression()` {SCIKIT_LEARN}"),
        ),
    )


def smoke() -> jaxlab.Study:
    """Return the same arms with two seeds and few steps: whether it runs, in a minute or two."""
    study = get_study()
    few = {"train.steps": 20, "train.eval_every": 10, "train.checkpoint_every": 20, "train.log_every": 5}
    return jaxlab.Study(jaxlab.override(study.base, few), study.arms, range(2), study.metric)
