"""The baseline that every text classifier has to beat: TF-IDF of words and word pairs, and a logistic regression.

Usage: ``python scripts/bag_of_words.py --config=configs/reviews_lstm.py``; prints a JSON object with the accuracy and
cross-entropy of it, and of always the most frequent class, on the config's validation and test splits.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, log_loss
from sklearn.pipeline import make_pipeline

import jaxlab
from jaxlab.core.types import Source
from jaxlab.run.sources import open_sources

STRENGTHS = (0.3, 1.0, 3.0, 10.0)  # inverse penalties, of which validation chooses


def rows(source: Source, field: str, target: str) -> tuple[list[str], np.ndarray]:
    """Return all texts and classes of a split."""
    fields = source.__getitems__(np.arange(len(source)))
    return [text or "" for text in fields[field]], fields[target]


def main() -> None:
    """Fit on train, choose on valid, report both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True)
    parser.add_argument("--field", default="text")
    parser.add_argument("--target", default="label")
    options = parser.parse_args()
    sources = open_sources(jaxlab.load_config(options.config))
    data = {split: rows(source, options.field, options.target) for split, source in sources.items()}
    texts, labels = data["train"]
    models = [
        make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True), LogisticRegression(C=c, max_iter=1000)
        ).fit(texts, labels)
        for c in STRENGTHS
    ]
    best = min(models, key=lambda model: log_loss(data["valid"][1], model.predict_proba(data["valid"][0])))
    share = np.bincount(labels) / len(labels)
    result = {"inverse_penalty": best[-1].C}
    for split in ("valid", "test"):
        texts, labels = data[split]
        probability = best.predict_proba(texts)
        result |= {
            f"{split}/accuracy": accuracy_score(labels, probability.argmax(1)),
            f"{split}/cross_entropy": log_loss(labels, probability),
            f"{split}/majority_accuracy": float(np.mean(labels == share.argmax())),
            f"{split}/majority_cross_entropy": log_loss(labels, np.tile(share, (len(labels), 1))),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
