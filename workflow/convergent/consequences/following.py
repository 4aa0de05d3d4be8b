"""Units followed through a net: which entries of which tensors belong to one unit.

The net runs once, and each function that it calls is seen, as in
:mod:`convergent.activations.probing`. Every entry of a weight's axis begins as a label of its own,
and every value that the net computes has the label of the unit to which it belongs. Functions move
labels (a flattened map has each unit's label at all its positions), or join them: a sum those of
its terms, a linear map those of its input with those of its weight's columns. What is joined
belongs to one unit and has to move with it.

A permutation of labels moves the k-th entry of a unit to the k-th entry of another, in every tensor
alike. Two units can change places if they have equally many entries in every tensor, and in every
part of it that a function treats as a set (such as the channels of a group normalisation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from convergent import ConvergentError
from convergent.activations.probing import MOVING, SECOND
from convergent.nets.modules import LocalResponseNorm

# Labels of values that belong to no unit: those at places that do not move, and constants, which
# are alike wherever they stand.
STILL, CONSTANT = 0, 1

ELEMENTWISE = (
    "relu", "relu6", "gelu", "silu", "elu", "selu", "celu", "leaky_relu", "mish", "hardswish",
    "hardtanh", "hardsigmoid", "softplus", "softsign", "sigmoid", "logsigmoid", "tanh",
    "tanhshrink", "hardshrink", "softshrink", "threshold", "rrelu", "erf", "clamp", "clip",
    "clamp_min", "clamp_max", "exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sqrt",
    "rsqrt", "square", "abs", "absolute", "neg", "negative", "sin", "cos", "atan", "arctan",
    "pow", "rpow", "ipow", "reciprocal", "sign", "sgn", "round", "floor", "ceil", "add", "radd",
    "iadd", "sub", "subtract", "rsub", "isub", "mul", "multiply", "rmul", "imul", "div",
    "divide", "truediv", "true_divide", "rdiv", "rtruediv", "itruediv", "idiv", "floordiv",
    "floor_divide", "maximum", "minimum", "fmax", "fmin", "where", "masked_fill", "addcmul",
    "addcdiv", "lerp", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or",
    "logical_not", "logical_xor", "and", "or", "xor", "invert", "isnan", "isinf", "isfinite",
    "nan_to_num", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
    "feature_dropout", "feature_alpha_dropout", "stochastic_depth", "clone", "contiguous",
    "detach", "float", "double", "half", "bfloat16", "bool", "cpu", "cuda", "to", "type",
    "type_as", "copy", "requires_grad", "alias",
)  # fmt: skip
# Of these only the first tensor has values that come out.
FIRST = ("to", "type", "type_as", "requires_grad")
MOVES = (
    "view_as", "reshape_as", "expand_as", "broadcast_to", "ravel", "rot90", "fliplr", "flipud",
    "repeat_interleave", "split_with_sizes", "tensor_split", "hsplit", "vsplit", "dsplit",
    "hstack", "vstack", "dstack", "column_stack", "concatenate", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "unfold", "adjoint", "mT",
    "numpy_T", "take", "gather", "unsafe_chunk", "unsafe_split",
    *MOVING,
)  # fmt: skip
REDUCING = (
    "mean", "sum", "nanmean", "nansum", "amax", "amin", "max", "min", "var", "std", "logsumexp",
    "prod", "median", "norm", "vector_norm", "linalg_vector_norm", "any", "all",
)  # fmt: skip
BALANCING = ("softmax", "log_softmax", "softmin", "normalize")
CREATING = (
    "zeros", "ones", "full", "empty", "zeros_like", "ones_like", "full_like", "new_zeros",
    "new_ones", "new_full",
)  # fmt: skip
RESIZING = ("pool", "interpolate", "upsample")
TRANSPOSED = tuple(name for name in SECOND if "transpose" in name)


class FollowingError(ConvergentError, ValueError):
    """A net whose units cannot be followed; the message names the operation and its place."""


class Labels(NamedTuple):
    """Labels of a tensor's values: `pattern`, whose axes along which they are equal have size 1."""

    pattern: NDArray[np.int64]
    shape: tuple[int, ...]


class Record(NamedTuple):
    """Labels that a permutation must keep as a set, perhaps those of an axis of a tensor.

    Attributes
    ----------
    labels : ndarray, int64
        Of the entries of `axis`, or of the whole tensor if that is None.
    tensors : tuple of str
        Names in the state dict, several if weights are tied; empty for values that are computed.
    axis : int or None
    rows : tuple of two int or None
        First and last but one entry of axis 0 that are meant, in a convolution in groups.
    """

    labels: NDArray[np.int64]
    tensors: tuple[str, ...] = ()
    axis: int | None = None
    rows: tuple[int, int] | None = None


class Following(TorchFunctionMode):
    """Mode in which the units of a net are followed through every function that it calls.

    Attributes
    ----------
    root : ndarray of shape (label,), int64
        Smallest label of each label's unit; STILL for what cannot move.
    records : list of Record
    held : list of tuple of ndarray and str
        Labels whose units must stay, and why.
    ordered : list of tuple of ndarray and str
        Labels whose order a function sees a little (local response normalisation), and its place.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net
        state = net.state_dict(keep_vars=True)
        self.names: dict[int, tuple[str, ...]] = {}
        for name, tensor in state.items():
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point():
                self.names[id(tensor)] = (*self.names.get(id(tensor), ()), name)
        self.constants = {id(buffer) for buffer in net.buffers() if id(buffer) not in self.names}
        self.root = np.array([STILL, CONSTANT])
        self.records: list[Record] = []
        self.held: list[tuple[NDArray[np.int64], str]] = []
        self.ordered: list[tuple[NDArray[np.int64], str]] = []
        self.known = WeakTensorKeyDictionary()
        self.weights: dict[tuple, NDArray[np.int64]] = {}
        self.inside: list[str] = []
        self.asleep = 0
        self.again = False  # a second run, in which records are there already

    @contextmanager
    def at_modules(self):
        """Note in which module functions are called, and follow modules that have rules."""
        hooks = []
        for path, module in self.net.named_modules():
            hooks += [module.register_forward_pre_hook(self._enter(path, module))]
            hooks += [module.register_forward_hook(self._leave(path, module))]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def run(self, run: Callable[[torch.Tensor], Any], example: torch.Tensor) -> None:
        """Run a net, whose input and output do not move."""
        self.known[example] = Labels(np.full((1,) * example.ndim, STILL), tuple(example.shape))
        self.inside, self.asleep = [], 0
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with torch.no_grad(), self.at_modules(), self:
                answer = run(example)
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
        for output in tensors_in(answer):
            if output.is_floating_point():
                self.join(self.labels(output).pattern, STILL)

    def labels(self, tensor: torch.Tensor) -> Labels:
        """Return the labels of a tensor's values, up to date."""
        if tensor in self.known:
            labels = self.known[tensor]
        elif id(tensor) in self.names:
            labels = self._values(tensor)
        else:
            constant = id(tensor) in self.constants or tensor.numel() == 1
            if constant or self.again or not tensor.is_floating_point():
                return still(tensor.shape)
            raise self.error(
                "takes values that were computed out of sight, as by a compiled function or an "
                "autograd function of the net's own, or that are in no buffer of the net"
            )
        return compressed(self.root[labels.pattern], labels.shape)

    def join(self, one: NDArray | int, other: NDArray | int) -> None:
        """Make labels, element by element, those of one unit; constants join with nothing."""
        a, b = np.broadcast_arrays(self.root[one], self.root[other])
        apart = (a != b) & (a != CONSTANT) & (b != CONSTANT)
        if not apart.any():
            return
        count = len(self.root)
        pairs = np.unique(a[apart] * count + b[apart])
        units, ends = np.unique(np.stack([pairs // count, pairs % count]), return_inverse=True)
        ends = ends.reshape(2, -1)
        graph = coo_matrix((np.ones(len(pairs)), (ends[0], ends[1])), (len(units), len(units)))
        _, part = connected_components(graph, directed=False)
        least = np.full(part.max() + 1, count)
        np.minimum.at(least, part, units)
        new = np.arange(count)
        new[units] = least[part]
        self.root = new[self.root]

    def hold(self, labels: NDArray, reason: str) -> None:
        """Keep units where they are, for a reason that can be told."""
        labels = np.unique(self.root[labels])
        if (labels > CONSTANT).any():
            self.held.append((labels[labels > CONSTANT], reason))

    def axis(self, weight: torch.Tensor, axis: int) -> NDArray[np.int64]:
        """Return the labels of the entries of a weight's axis."""
        key = (id(weight), axis)
        if key not in self.weights:
            if id(weight) not in self.names:
                raise self.error("has weights that are computed, not parameters of the net")
            if (id(weight), None) in self.weights:
                raise self.error(
                    f"has the weights {self.names[id(weight)][0]}, which are used as values, too"
                )
            self.weights[key] = self._new(weight.shape[axis])
            names = self.names[id(weight)]
            self.records.append(Record(self.weights[key], names, axis))
        return self.weights[key]

    def error(self, what: str) -> FollowingError:
        """Make the error for the function that is being followed."""
        place = self.place()
        return FollowingError(
            f"the units of this net cannot be followed: {place}: {self.function} {what}"
        )

    def place(self) -> str:
        """Name the module that is running."""
        return next((path for path in reversed(self.inside) if path), type(self.net).__name__)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func)).strip("_")
        own = bool(args) and (id(args[0]) in self.names or id(args[0]) in self.constants)
        if self.asleep or (name in ("get", "set") and own):  # such as the shape of a parameter
            return func(*args, **kwargs)
        self.function = name
        # Arguments may be changed in place, so their labels come first.
        rule = _RULES.get(name) or next((_resize for word in RESIZING if word in name), None)
        given = [t for t in tensors_in((args, kwargs)) if t.is_floating_point()]
        if name == "setitem":
            _set_item(self, args)
            return func(*args, **kwargs)
        before = None
        if rule is None and name not in CREATING and given:
            before = [self.labels(t) for t in given]
        result = func(*args, **kwargs)
        outputs = tensors_in(result)
        if not outputs:
            return result
        if name in CREATING:
            made = [Labels(np.full((1,) * t.ndim, CONSTANT), tuple(t.shape)) for t in outputs]
        elif rule is not None:
            try:
                made = rule(self, func, args, kwargs, outputs)
            except (RuntimeError, NotImplementedError, IndexError, TypeError) as error:
                raise self.error(f"cannot be followed ({error})") from error
        else:
            if before and any((one.pattern != STILL).any() for one in before):
                raise self.error("is an operation without a rule; it would be right to add one")
            made = [still(t.shape) for t in outputs]
        for output, labels in zip(outputs, made, strict=True):
            labels = compressed(self.root[labels.pattern], tuple(output.shape))
            self.known[output] = labels
            self.note(labels.pattern)
        return result

    def note(self, labels: NDArray) -> None:
        """Record labels that a permutation must keep as a set."""
        if not self.again and labels.size > 1 and (labels > CONSTANT).any():
            self.records.append(Record(labels))

    def _new(self, count: int) -> NDArray[np.int64]:
        new = np.arange(len(self.root), len(self.root) + count)
        self.root = np.concatenate([self.root, new])
        return new

    def _values(self, tensor: torch.Tensor) -> Labels:
        """Label a parameter or buffer that is used as values, each entry by itself."""
        long = [axis for axis, size in enumerate(tensor.shape) if size > 1]
        key: tuple = (id(tensor), None)
        if len(long) == 1 and key not in self.weights:
            labels = self.axis(tensor, long[0])
        elif key in self.weights:
            labels = self.weights[key]
        else:
            if any(used == id(tensor) for used, _ in self.weights):
                raise self.error(
                    f"takes values of {self.names[id(tensor)][0]}, which are weights, too"
                )
            labels = self.weights[key] = self._new(tensor.numel())
            labels = labels.reshape(tensor.shape)
            self.weights[key] = labels
            self.records.append(Record(labels, self.names[id(tensor)]))
        return Labels(labels.reshape(tensor.shape), tuple(tensor.shape))

    def _enter(self, path: str, module: nn.Module):
        def hook(module: nn.Module, args: tuple) -> None:
            self.inside.append(path)
            if isinstance(module, LocalResponseNorm):
                self.asleep += 1

        return hook

    def _leave(self, path: str, module: nn.Module):
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            if isinstance(module, LocalResponseNorm):
                self.asleep -= 1
                self.function = "local response normalisation"
                self.known[output] = see_order(self, args[0])
            elif not self.asleep:
                self.function = type(module).__name__
                for tensor in tensors_in(output):
                    if tensor.is_floating_point():
                        self.labels(tensor)
            self.inside.pop()

        return hook


def tensors_in(values: Any) -> list[torch.Tensor]:
    """List the tensors in a value, lists, tuples and mappings."""
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, Mapping):
        values = values.values()
    elif not isinstance(values, list | tuple):
        return []
    return [tensor for value in values for tensor in tensors_in(value)]


def still(shape: Sequence[int]) -> Labels:
    """Label values that do not move."""
    return Labels(np.full((1,) * len(shape), STILL), tuple(shape))


def compressed(pattern: NDArray, shape: Sequence[int]) -> Labels:
    """Give axes along which labels are equal size 1."""
    for axis, size in enumerate(pattern.shape):
        if size > 1:
            first = pattern.take([0], axis)
            if np.array_equal(np.broadcast_to(first, pattern.shape), pattern):
                pattern = first
    return Labels(pattern, tuple(shape))


def see_order(follow: Following, value: torch.Tensor) -> Labels:
    """Local response normalisation: note whose order is seen; labels stay."""
    labels = follow.labels(value)
    if not follow.again and (labels.pattern > CONSTANT).any():
        follow.ordered.append((labels.pattern.ravel(), follow.place()))
    return labels


# Rules: each takes the mode, the function, its arguments and the tensors that it returned, and
# gives the labels of these.


def _argument(args: Sequence, kwargs: Mapping, index: int, name: str, default: Any = None) -> Any:
    return args[index] if len(args) > index else kwargs.get(name, default)


def _elementwise(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    given = tensors_in((args, kwargs))
    if follow.function in FIRST:
        given = given[:1]
    labels = follow.labels(given[0])
    for other in given[1:]:
        labels = _together(follow, labels, follow.labels(other))
    return [labels] * len(outputs)


def _together(follow: Following, one: Labels, other: Labels) -> Labels:
    """Join the labels of two terms of a sum, product or the like, which may be broadcast."""
    axes = max(len(one.shape), len(other.shape))

    def wide(labels: Labels) -> Labels:
        missing = (1,) * (axes - len(labels.shape))
        return Labels(
            labels.pattern.reshape(missing + labels.pattern.shape), missing + labels.shape
        )

    one, other = wide(one), wide(other)
    shape = np.broadcast_shapes(one.shape, other.shape)
    varies = [tuple(k for k in range(axes) if x.pattern.shape[k] > 1) for x in (one, other)]
    alone = [all(y.shape[k] == 1 for k in v) for v, y in zip(varies, (other, one), strict=True)]
    for x, y, free in ((one, other, alone[0] and varies[0]), (other, one, alone[1] and varies[1])):
        if not free:
            continue
        # The other term is the same for all units of this one.
        if max(y.pattern.shape) > 1 and (y.pattern > CONSTANT).any():
            follow.hold(y.pattern, f"multiplied out with other units at {follow.place()}")
        return Labels(x.pattern, shape)
    a, b = np.broadcast_arrays(one.pattern, other.pattern)
    for these, those in ((a, b), (b, a)):
        mixed = (these > CONSTANT) & (those == STILL)
        if mixed.any():
            follow.hold(these[mixed], f"combined with values that do not move at {follow.place()}")
    moving = (a > CONSTANT) & (b > CONSTANT)
    follow.join(a[moving], b[moving])
    return Labels(np.where((a > CONSTANT) | (b == CONSTANT), a, b), shape)


def _moving(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    any_units = False

    def replaced(value: Any) -> Any:
        nonlocal any_units
        if isinstance(value, torch.Tensor):
            labels = follow.labels(value)
            units = bool((labels.pattern != STILL).any())
            any_units |= units
            return _as_tensor(labels) if units or value.is_floating_point() else value
        if type(value) in (list, tuple):
            return type(value)(map(replaced, value))
        return value

    args, kwargs = replaced(args), {key: replaced(value) for key, value in kwargs.items()}
    if not any_units:
        return [still(output.shape) for output in outputs]
    return [_read(each) for each in tensors_in(func(*args, **kwargs))]


def _as_tensor(labels: Labels) -> torch.Tensor:
    """Lay labels out as values of a tensor; double precision holds them exactly."""
    return torch.from_numpy(labels.pattern.astype(np.float64)).expand(labels.shape)


def _read(moved: torch.Tensor) -> Labels:
    same = [slice(0, 1) if stride == 0 else slice(None) for stride in moved.stride()]
    return compressed(moved[tuple(same)].numpy().astype(np.int64), moved.shape)


def _pad(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    pad = _argument(args, kwargs, 1, "pad")
    mode = _argument(args, kwargs, 2, "mode", "constant")
    full = _as_tensor(follow.labels(_argument(args, kwargs, 0, "input")))
    value = (CONSTANT,) if mode == "constant" else ()
    return [_read(functional.pad(full, pad, mode, *value))]


def _set_item(follow: Following, args: Sequence) -> None:
    target, index, value = args
    if not target.is_floating_point():
        return
    moved = _as_tensor(follow.labels(target)).clone()
    tensor = isinstance(value, torch.Tensor)
    moved[index] = _as_tensor(follow.labels(value)) if tensor else float(CONSTANT)
    follow.known[target] = _read(moved)
    follow.note(follow.known[target].pattern)


def _dims(dims: Any, axes: int) -> list[int]:
    dims = range(axes) if dims is None else [dims] if isinstance(dims, int) else dims
    return sorted({dim % axes for dim in dims})


def _reduce(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    value = args[0]
    if len(args) > 1 and isinstance(args[1], torch.Tensor):  # the larger of two
        return _elementwise(follow, func, args, kwargs, outputs)
    index = 2 if "norm" in follow.function else 1
    dims = _dims(_argument(args, kwargs, index, "dim", kwargs.get("axis")), value.ndim)
    keep = outputs[0].ndim == value.ndim
    pattern = follow.labels(value).pattern
    shape = pattern.shape
    along = [k for k in dims if shape[k] > 1]
    if along and all(shape[k] == 1 for k in range(value.ndim) if k not in dims):
        pattern = np.full((1,) * value.ndim, STILL)  # a sum over units, in any order
    elif along:
        first = pattern
        for axis in along:
            first = first.take([0], axis)
        follow.join(pattern, first)
        pattern = first
    pattern = pattern if keep else pattern.squeeze(tuple(dims))
    return [Labels(pattern, tuple(outputs[0].shape))] * len(outputs)


def _balance(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    index = 2 if follow.function == "normalize" else 1
    default = 1 if follow.function == "normalize" else -1
    dims = _dims(_argument(args, kwargs, index, "dim", default), args[0].ndim)
    return [_as_sets(follow, follow.labels(args[0]), dims)]


def _as_sets(follow: Following, labels: Labels, dims: Sequence[int]) -> Labels:
    """Record the values along some axes as sets, one for each index of the others."""
    pattern = labels.pattern
    if any(pattern.shape[k] > 1 for k in dims):
        lines = np.moveaxis(pattern, dims, range(-len(dims), 0))
        lines = lines.reshape(-1, int(np.prod([pattern.shape[k] for k in dims])))
        for line in np.unique(lines, axis=0):
            follow.note(line)
    return labels


def _layer_norm(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    value, normalised = args[0], _argument(args, kwargs, 1, "normalized_shape")
    dims = range(value.ndim - len(normalised), value.ndim)
    labels = _as_sets(follow, follow.labels(value), dims)
    for tensor in tensors_in((args[1:], kwargs)):
        labels = _together(follow, labels, follow.labels(tensor))
    return [labels]


def _channels(follow: Following, labels: Labels, axis: int) -> NDArray[np.int64]:
    """Join the labels of each entry of an axis over all others; return one for each entry."""
    lines = np.moveaxis(labels.pattern, axis, 0).reshape(labels.pattern.shape[axis], -1)
    lines = lines if lines.shape[0] > 1 else np.repeat(lines, labels.shape[axis], 0)
    first = np.take_along_axis(lines, (lines != CONSTANT).argmax(1)[:, None], 1)
    follow.join(lines, first)
    return follow.root[first[:, 0]]


def _at(vector: NDArray, axis: int, shape: Sequence[int]) -> Labels:
    """Lay labels out along an axis."""
    sides = [1] * len(shape)
    sides[axis] = len(vector)
    return Labels(vector.reshape(sides), tuple(shape))


def _normalise(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    value = args[0]
    vector = _channels(follow, follow.labels(value), 1)
    if follow.function == "group_norm":
        groups = _argument(args, kwargs, 1, "num_groups")
        for part in np.split(vector, groups):
            follow.note(part)
    for tensor in tensors_in((args[1:], kwargs)):
        own = follow.axis(tensor, 0)
        follow.join(own, vector)
        vector = np.where(vector == CONSTANT, own, vector)
    return [_at(vector, 1, value.shape)]


def _prelu(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    value, weight = args[0], _argument(args, kwargs, 1, "weight")
    if weight.numel() == 1:
        return [follow.labels(value)]
    vector = _channels(follow, follow.labels(value), 1)
    follow.join(follow.axis(weight, 0), vector)
    return [_at(vector, 1, value.shape)]


def _resize(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    value = _argument(args, kwargs, 0, "input")
    labels = follow.labels(value)
    spatial = range(2 if value.ndim > 2 else 1, value.ndim)
    pattern = labels.pattern
    first = pattern
    for axis in spatial:
        first = first.take([0], axis)
    follow.join(pattern, first)
    return [Labels(first, tuple(output.shape)) for output in outputs]


def _contract(follow: Following, labels: Labels, axis: int, weight: NDArray) -> bool:
    """Join an axis of a value with that of the weight by which it is multiplied.

    Returns whether the axis holds positions of units that lie along another axis.
    """
    sides = labels.pattern.shape
    if sides[axis] == 1 and max(sides) > 1:
        return True
    vector = _channels(follow, labels, axis)
    follow.join(weight, np.where(vector == CONSTANT, STILL, vector))
    return False


def _linear(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    value, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
    bias = _argument(args, kwargs, 2, "bias")
    units = follow.axis(weight, 0)
    if bias is not None:
        follow.join(follow.axis(bias, 0), units)
    labels = follow.labels(value)
    if _contract(follow, labels, value.ndim - 1, follow.axis(weight, 1)):
        for each in (units, follow.axis(weight, 1)):
            follow.hold(each, f"mixes positions of other units at {follow.place()}")
        return [Labels(labels.pattern, tuple(outputs[0].shape))]
    return [_at(units, value.ndim - 1, outputs[0].shape)]


def _convolve(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    value, weight = _argument(args, kwargs, 0, "input"), _argument(args, kwargs, 1, "weight")
    bias = _argument(args, kwargs, 2, "bias")
    transposed = follow.function in TRANSPOSED
    groups = _argument(args, kwargs, 6, "groups", 1)
    axis = value.ndim - weight.ndim + 1  # 0 without an axis of images
    labels = follow.labels(value)
    # Axis 0 of the weight holds outputs, or inputs if it is transposed.
    rows = follow.axis(weight, 0)
    if groups == 1:
        columns = follow.axis(weight, 1)
        inputs, units = (rows, columns) if transposed else (columns, rows)
        if _contract(follow, labels, axis, inputs):
            raise follow.error("slides over units, not over positions")
    else:
        vector = _channels(follow, labels, axis)
        each = weight.shape[1]
        if not transposed and each == 1:  # outputs belong to the input that they are made of
            follow.join(rows, np.repeat(vector, len(rows) // groups))
            units = follow.root[rows]
        elif transposed and len(rows) == groups:
            follow.join(rows, vector)
            units = np.repeat(follow.root[rows], each)
            _in_rows(follow, weight, units, groups)
        elif transposed:
            follow.join(rows, vector)
            units = follow.weights.setdefault((id(weight), "units"), follow._new(each * groups))
            _in_rows(follow, weight, units, groups)
        else:
            units = rows
            _in_rows(follow, weight, vector, groups)
        for part in (*np.split(units, groups), *np.split(vector, groups)):
            if len(vector) > groups:
                follow.note(part)
    if bias is not None:
        follow.join(follow.axis(bias, 0), units)
    return [_at(units, axis, outputs[0].shape)]


def _in_rows(follow: Following, weight: torch.Tensor, labels: NDArray, groups: int) -> None:
    """Record axis 1 of the weight of a convolution in groups, whose rows have each their own."""
    key = (id(weight), "rows")
    if key in follow.weights:
        follow.join(follow.weights[key], labels)
        return
    follow.weights[key] = labels
    step = len(weight) // groups
    for group, part in enumerate(np.split(labels, groups)):
        rows = (group * step, (group + 1) * step)
        follow.records.append(Record(part, follow.names[id(weight)], 1, rows))


def _embed(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    weight = _argument(args, kwargs, 1, "weight")
    follow.join(follow.axis(weight, 0), STILL)
    return [_at(follow.axis(weight, 1), outputs[0].ndim - 1, outputs[0].shape)]


def _matmul(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    one, other = (follow.labels(each) for each in args[:2])
    if min(len(one.shape), len(other.shape)) < 2:
        raise follow.error("multiplies vectors")
    return [_product(follow, one, other)]


def _product(follow: Following, one: Labels, other: Labels) -> Labels:
    """Follow a product (..., n, k) times (..., k, m) of values that the net has computed."""
    axes = max(len(one.shape), len(other.shape))

    def wide(labels: Labels) -> NDArray:
        return labels.pattern.reshape((1,) * (axes - len(labels.shape)) + labels.pattern.shape)

    x, y = wide(one), wide(other)
    batch = np.broadcast_shapes((1,) * axes, (*one.shape[:-2], 1, 1), (*other.shape[:-2], 1, 1))
    shape = (*batch[:-2], one.shape[-2], other.shape[-1])
    heads = any(side > 1 for side in (*x.shape[:-2], *y.shape[:-2]))
    if x.shape[-1] > 1 or y.shape[-2] > 1:
        if x.shape[-2] > 1 or y.shape[-1] > 1:
            raise follow.error("multiplies values whose units lie along both axes")
        # Both have units along the axis that is summed, as in the scores of attention.
        terms = np.swapaxes(x, -1, -2), y
        a, b = np.broadcast_arrays(*terms)
        if not ((a > CONSTANT) & (b > CONSTANT)).all():
            follow.hold(
                np.concatenate([a.ravel(), b.ravel()]),
                f"multiplied with values that do not move at {follow.place()}",
            )
            return Labels(np.full((1,) * axes, STILL), shape)
        follow.join(a, b)
        if not heads:
            return Labels(np.full((1,) * axes, STILL), shape)
        # All units of a head, which moves as a whole.
        follow.join(a, a[..., :1, :])
        return Labels(a[..., :1, :], shape)
    moving = [z for z in (x, y) if (z > CONSTANT).any()]
    if not heads and len(moving) == 2 and x.shape[-2] > 1 and y.shape[-1] > 1:
        raise follow.error("makes values of the units of two axes")
    if not moving:
        return Labels(np.full((1,) * axes, STILL), shape)
    if len(moving) == 1:
        # Values that do not move, such as scores, weigh positions of units.
        (z,) = moving
        rest = (one if z is y else other).shape
        rest = (1,) * (axes - len(rest)) + rest
        if any(z.shape[k] > 1 and rest[k] > 1 for k in range(axes - 2)):
            follow.hold(z, f"multiplied with values that do not move at {follow.place()}")
        return Labels(z, shape)
    a, b = np.broadcast_arrays(x, y)
    follow.join(a, b)
    return Labels(a, shape)


def _attend(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    query, key, value = (follow.labels(each) for each in args[:3])
    turned = Labels(
        np.swapaxes(key.pattern, -1, -2), (*key.shape[:-2], key.shape[-1], key.shape[-2])
    )
    scores = _product(follow, query, turned)
    mask = _argument(args, kwargs, 3, "attn_mask")
    if mask is not None:
        scores = _together(follow, scores, follow.labels(mask))
    scores = compressed(follow.root[scores.pattern], scores.shape)
    value = compressed(follow.root[value.pattern], value.shape)
    return [_product(follow, scores, value)]


def _multi_head(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    names = (
        "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight",
        "in_proj_bias", "bias_k", "bias_v", "add_zero_attn", "dropout_p", "out_proj_weight",
        "out_proj_bias",
    )  # fmt: skip
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given["bias_k"] is not None or (
        given.get("need_weights", True) and not given.get("average_attn_weights", True)
    ):
        raise follow.error("has keys of its own, or returns the weights of each head")
    inputs = [given[name] for name in ("query", "key", "value")]
    heads, out = given["num_heads"], given["out_proj_weight"]
    if given.get("use_separate_proj_weight"):
        projections = [given[f"{each}_proj_weight"] for each in "qkv"]
        columns = [follow.axis(each, 1) for each in projections]
        rows = [follow.axis(each, 0) for each in projections]
    else:
        columns = [follow.axis(given["in_proj_weight"], 1)] * 3
        rows = np.split(follow.axis(given["in_proj_weight"], 0), 3)
    inside = follow.axis(out, 1).reshape(heads, -1)
    for value, column, row in zip(inputs, columns, rows, strict=True):
        if _contract(follow, follow.labels(value), value.ndim - 1, column):
            raise follow.error("attends over units, not over positions")
        follow.join(row.reshape(heads, -1), inside[:, :1])
    follow.join(inside, inside[:, :1])
    if given["in_proj_bias"] is not None:
        follow.join(follow.axis(given["in_proj_bias"], 0), np.concatenate(rows))
    units = follow.axis(out, 0)
    if given["out_proj_bias"] is not None:
        follow.join(follow.axis(given["out_proj_bias"], 0), units)
    made = [_at(units, outputs[0].ndim - 1, outputs[0].shape)]
    return made + [still(output.shape) for output in outputs[1:]]


def _ordered(follow: Following, func, args, kwargs, outputs) -> list[Labels]:
    return [see_order(follow, args[0])]


_RULES: dict[str, Callable[..., list[Labels]]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(MOVES, _moving),
    **dict.fromkeys(REDUCING, _reduce),
    **dict.fromkeys(BALANCING, _balance),
    **dict.fromkeys(SECOND, _convolve),
    **dict.fromkeys(("batch_norm", "instance_norm", "group_norm"), _normalise),
    **dict.fromkeys(("layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("matmul", "bmm"), _matmul),
    "linear": _linear,
    "pad": _pad,
    "prelu": _prelu,
    "embedding": _embed,
    "scaled_dot_product_attention": _attend,
    "multi_head_attention_forward": _multi_head,
    "local_response_norm": _ordered,
}
