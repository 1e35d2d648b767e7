"""Reading the authors' files without executing anything that is in them.

PyTorch's own restricted loader takes plain tensors and dictionaries. It refuses whole pickled modules, as MNAD
publishes, and NumPy numbers; those go through an unpickler that knows the containers, tensors and arrays of PyTorch
and NumPy by name and puts an empty module in the place of every class of the authors' own. Any other name in the file
is an error. Pickled arrays, such as VEC's boxes and Caffe2's weights, go through the same unpickler.
"""

import codecs
import collections
import pickle
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._utils
from numpy._core.multiarray import _reconstruct, scalar
from torch import nn

from stages.command import VigilError

AUTHORS_MODULES = ("model.",)  # MNAD's own package: its classes carry no code that loading needs
ALLOWED = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.nn.parameter", "Parameter"): nn.Parameter,
    ("_codecs", "encode"): codecs.encode,  # how Python 3 writes an array's bytes for readers in Python 2
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{
        (f"numpy.{core}.multiarray", function.__name__): function
        for core in ("core", "_core")
        for function in (_reconstruct, scalar)
    },
}


class Opaque(nn.Module):
    """Stands for one of the authors' classes: holds what the file says it holds, does nothing."""


class RestrictedUnpickler(pickle.Unpickler):
    """Builds arrays, tensors, parameters, PyTorch's own layers, and `Opaque` modules; refuses all else."""

    def find_class(self, module: str, name: str) -> Any:
        """What a name in the file stands for. Raises UnpicklingError for a name that is not known to be harmless."""
        if module.startswith(AUTHORS_MODULES):
            return Opaque
        if (module, name) in ALLOWED:
            return ALLOWED[module, name]
        if module.startswith("torch.nn.modules."):
            found = getattr(nn, name, None)
            if isinstance(found, type) and issubclass(found, nn.Module) and found.__module__.startswith("torch.nn."):
                return found
        if module == "torch" and name.endswith("Storage") and isinstance(getattr(torch, name, None), type):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")


def load_authors_file(path: str | Path) -> Any:
    """A tensor, a dictionary of tensors, or a whole module's state dictionary, on the CPU.

    Raises VigilError where the file is missing, is no PyTorch file, or holds anything but tensors and modules.
    """
    path = Path(path)
    if not path.is_file():
        raise VigilError(f"{path} not found: expected a checkpoint file that the authors published")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        pass
    except (RuntimeError, EOFError, OSError) as error:
        raise VigilError(f"{path} is no PyTorch file, or a damaged one: {error}") from None
    restricted = types.SimpleNamespace(
        __name__="restricted_pickle",
        Unpickler=RestrictedUnpickler,
        load=lambda file, **options: RestrictedUnpickler(file, **options).load(),
    )
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=False, pickle_module=restricted)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, TypeError) as error:
        raise VigilError(f"{path} is refused: {error}; nothing of it was executed") from None
    return loaded.state_dict() if isinstance(loaded, nn.Module) else loaded


def load_arrays(path: str | Path) -> Any:
    """What a pickle of NumPy arrays holds, in containers or bare; a .npy file of objects counts as one.

    Text of Python 2 is read as Latin-1. Raises VigilError where the file is missing, damaged, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise VigilError(f"{path} not found: expected a file of arrays that the authors published")
    with open(path, "rb") as file:
        try:
            if path.suffix == ".npy":
                version = np.lib.format.read_magic(file)
                read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
                shape, _, dtype = read_header[version](file)
                if not dtype.hasobject:
                    return np.load(path)
                return RestrictedUnpickler(file, encoding="latin-1").load().reshape(shape)
            return RestrictedUnpickler(file, encoding="latin-1").load()
        except (pickle.UnpicklingError, KeyError, EOFError, AttributeError, TypeError, ValueError, IndexError) as error:
            raise VigilError(f"{path} is refused: {error}; nothing of it was executed") from None
