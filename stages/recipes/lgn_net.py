"""LGN-Net: "Local-Global Normality Network for Video Anomaly Detection", Zhao et al., arXiv 2211.07454.

Its section of params.yaml has the keys of MNAD's, on whose memory and scoring it builds. The authors' README
refers to the paper for values per data set, which their code does not contain: the code's defaults stand for all.
"""

from stages.recipes.mnad import CODE, MINIATURE, Recipe, ladder

__all__ = ["PUBLISHED", "Recipe", "ladder"]

PUBLISHED = {
    "fit.size": {"default": (256, CODE), "demo": (32, MINIATURE)},
    "fit.width": {"default": (64, CODE), "demo": (8, MINIATURE)},
    "fit.items": {"default": (10, CODE)},
    "fit.lambda_compact": {"default": (10.0, CODE)},
    "fit.lambda_separate": {"default": (5.0, CODE)},
    "fit.learning_rate": {"default": (2e-4, CODE), "demo": (1e-3, MINIATURE)},
    "fit.batch": {"default": (6, CODE)},
    "fit.epochs": {"default": (60, CODE), "demo": (4, MINIATURE)},
    "score.gamma": {"default": (0.009, CODE)},
    "fuse.alpha": {"default": (0.6, CODE)},
}
