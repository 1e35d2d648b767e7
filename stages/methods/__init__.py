"""One module a method, named as in params.yaml: network, losses, `fit`, `score`, in the paper's order."""
