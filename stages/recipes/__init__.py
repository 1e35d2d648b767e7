"""One module a method: its section of params.yaml, the published values with their sources, its fusion.

These modules import no network, so reading params.yaml stays fast. Each has
    Recipe       the section: `fit`, `score` and `fuse`, each tracked by the stage of that name
    PUBLISHED    {"part.key": {data set or "default": (value, source)}}
    fusion       (protocol, recipe.fuse) -> Fusion: how the raw components become one score a frame
"""
