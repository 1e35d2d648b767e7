"""MNAD, reconstruction: the same paper and section as `mnad`, one frame in and the same frame out."""

from stages.recipes.mnad import CODE, MINIATURE, RECALLED, Recipe, ladder

__all__ = ["PUBLISHED", "Recipe", "ladder"]

README = "authors' README, command for reconstruction"
LEARNING_RATE = "paper, as quoted in issue 5 of the authors' repository; their code has 2e-4 for both variants"

PUBLISHED = {
    "fit.size": {"default": (256, CODE), "demo": (64, MINIATURE)},
    "fit.width": {"default": (64, CODE), "demo": (8, MINIATURE)},
    "fit.items": {"default": (10, CODE)},
    "fit.lambda_compact": {"default": (0.01, README)},
    "fit.lambda_separate": {"default": (0.01, README)},
    "fit.learning_rate": {"default": (2e-5, LEARNING_RATE), "demo": (1e-3, MINIATURE)},
    "fit.batch": {"default": (4, CODE)},
    "fit.epochs": {"default": (60, CODE), "shanghaitech": (10, RECALLED), "demo": (4, MINIATURE)},
    "score.gamma": {"default": (0.015, README)},
    "fuse.alpha": {"default": (0.7, README)},
}
