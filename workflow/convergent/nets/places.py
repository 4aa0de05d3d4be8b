"""Places of a net: outputs of its modules and operations, by name.

A module's output has the module's path as its name. An operation, such as the sum of a residual
block, has the path of the module that computes it and the name that torch.fx gives it, as in
torchvision's ``feature_extraction``: ``layer1.0.add``. What runs again has a number:
``layer1.0.relu``, ``layer1.0.relu_1``. torch.fx traces the operations; in a module that it cannot
trace through, such as one whose control flow depends on data, only modules are places.
"""

from __future__ import annotations

import difflib
import math
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import torch
from torch import fx, nn

from convergent import ConvergentError
from convergent.nets.models import evaluating

# Kinds of places that are activation functions, first those of the paper.
ACTIVATIONS = (
    ("relu",),
    ("relu6", "gelu", "silu", "elu", "selu", "celu", "leakyrelu", "prelu", "mish", "hardswish",
     "hardtanh", "softplus", "sigmoid", "tanh"),
)  # fmt: skip
# Least number of blocks on one level that default places are taken from.
BLOCKS = 3
# Largest number of places that an error lists.
LISTED = 60

Result = TypeVar("Result")


class PlaceError(ConvergentError, KeyError):
    """A place that a net does not have; the message lists those that it has."""

    __str__ = Exception.__str__


class RunError(ConvergentError, ValueError):
    """A net that cannot run on its input; the message holds the net's own."""


class Place(NamedTuple):
    """A place of a net.

    Attributes
    ----------
    name : str
    kind : str
        Class of the module or name of the operation, in small letters without underscores, such
        as relu, gelu, conv2d, add or cat; "block" for a module that holds others.
    shape : tuple of int
        Shape of the output for the example, whose first axis is the images.
    """

    name: str
    kind: str
    shape: tuple[int, ...]


def places(net: nn.Module, example: torch.Tensor) -> list[Place]:
    """List the places of a net in the order in which they run.

    Only outputs that are tensors of at least two axes are listed.

    Parameters
    ----------
    net : nn.Module
        Any net, also on torch's meta device. Its mode is kept.
    example : torch.Tensor of shape (image, ...)
        Input of the net.

    Raises
    ------
    RunError
        If the net cannot run on the example.
    """
    return [place for place, _ in _outputs(net, example)[0]]


def default_places(net: nn.Module, example: torch.Tensor) -> list[str]:
    """Choose the places that a net is compared at if none are named: after each stage or block.

    Blocks are modules that hold other modules and have parameters. Those of the outermost level
    of nesting on which at least :data:`BLOCKS` of them run are chosen, except one that returns the
    net's own output. A net without such a level has all its ReLUs, or else all its other
    activation functions, or else all modules that have parameters and hold no others.

    Parameters and errors are those of :func:`places`.
    """
    found, answer = _outputs(net, example)
    modules = dict(net.named_modules())
    inner = [(place, output) for place, output in found if output is not answer]
    depths: dict[int, list[str]] = {}
    for place, _ in inner:
        module = modules.get(place.name)
        if module is not None and any(module.children()) and any(True for _ in module.parameters()):
            depths.setdefault(place.name.count("."), []).append(place.name)
    for depth in sorted(depths):
        if len(depths[depth]) >= BLOCKS:
            return depths[depth]
    for kinds in ACTIVATIONS:
        chosen = named_once(net, [place for place, _ in inner if place.kind in kinds])
        if chosen:
            return chosen
    weighted = (place.name for place, _ in inner if place.name in modules)
    return [name for name in weighted if modules[name]._parameters]


def named_once(net: nn.Module, found: Iterable[Place]) -> list[str]:
    """List names of places; a ReLU that is also the place of its parent has the parent's only."""
    short = _short_names(dict(net.named_modules()))
    return [place.name for place in found if place.name not in short]


def untraceable(net: nn.Module) -> str | None:
    """Say why a net cannot be traced, so that only its modules are places; None if it can."""
    with evaluating(net):
        return _Outline.of(net).fault


@contextmanager
def tapping(
    net: nn.Module,
    names: Iterable[str],
    seen: Callable[[str, Any], Any],
    *,
    replacing: bool = False,
) -> Iterator[Tapped]:
    """Yield a function that runs a net, during which outputs at places are passed on.

    The function takes a batch and returns the net's output. It keeps the net's device, mode and
    buffers, and runs the net in evaluation mode, with or without gradients as its caller wants it.
    If all names belong to modules, the net itself runs; if there is an operation among them, the
    graph that torch.fx traced of it, which shares the net's modules and parameters.

    Parameters
    ----------
    net : nn.Module
        The net, on the device on which it is to run.
    names : iterable of str
        Names of places.
    seen : callable
        Function of a name and an output, called once in each run for each name, as soon as the
        output is there. What runs later may change the output in place.
    replacing : bool
        If true, the net goes on with what `seen` returns in place of each output.

    Raises
    ------
    PlaceError
        In the first run, if the net lacks a place; if `replacing`, also for a place whose output is
        not a single tensor.
    """
    names = list(dict.fromkeys(names))
    modules = _modules(net)
    if all(name in modules for name in names):
        outline = _Outline(modules)
    else:
        with evaluating(net):
            outline = _Outline.of(net)
    yield Tapped(net, outline, names, seen, replacing)


class Tapped:
    """A net whose outputs at places are passed on when it runs; see :func:`tapping`.

    Attributes
    ----------
    traced : bool
        Whether the traced graph runs in place of the net itself.
    """

    def __init__(
        self,
        net: nn.Module,
        outline: _Outline,
        names: Sequence[str],
        seen: Callable,
        replacing: bool = False,
    ):
        self.net, self.modules, self.seen = net, outline.modules, seen
        self.replacing = replacing
        points = {name: outline.find(name) for name in names}
        self.missing = [name for name, point in points.items() if point is None]
        found = {name: point for name, point in points.items() if point is not None}
        self.traced = any(point.path is None for point in found.values())
        self.forward: Callable = net
        if self.traced and outline.graph is not None:
            self.forward = outline.graph
            inside = {name: point for name, point in found.items() if point.after is not None}
            _insert_taps(
                outline.graph, inside, lambda name, output: self.seen(name, output), replacing
            )
            found = {name: point for name, point in found.items() if point.after is None}
        self.wanted: dict[str, dict[int, list[str]]] = {}
        for name, point in found.items():
            if point.path is not None:
                self.wanted.setdefault(point.path, {}).setdefault(point.use, []).append(name)

    def __call__(self, batch: torch.Tensor) -> Any:
        """Run a batch and return the net's output."""
        if self.missing:
            raise _missing(self.net, self.missing, batch[:1])
        calls: Counter[str] = Counter()

        def hook(path: str) -> Callable:
            def pass_on(module: nn.Module, args: tuple, output: Any) -> Any:
                use = calls[path]
                calls[path] += 1
                given = output
                for name in self.wanted[path].get(use, ()):
                    found = self.seen(name, output)
                    output = found if self.replacing else output
                # What a hook returns takes the place of the output.
                return None if output is given else output

            return pass_on

        hooks = [self.modules[path].register_forward_hook(hook(path)) for path in self.wanted]
        try:
            with evaluating(self.net):
                return self.forward(batch)
        except ConvergentError:
            raise
        except Exception:
            if self.traced:
                # The net's own message has numbers where the graph's has names of nodes.
                with evaluating(self.net):
                    self.net(batch)
            raise
        finally:
            for handle in hooks:
                handle.remove()


def rest(net: nn.Module, name: str, example: torch.Tensor) -> Callable[..., Any]:
    """Make a function that runs a net from a place on, given the output of this place.

    Parameters
    ----------
    net : nn.Module
        Net in evaluation mode, on the device of `example`, in which it must stay.
    name : str
        Name of the place.
    example : torch.Tensor of shape (image, ...)
        Input of the net, on which the function is compared with the net.

    Returns
    -------
    callable
        Function of the images and the output of the place for them, which it may change in place;
        it returns the net's output. What does not depend on the place is computed from the images,
        which is nothing but shapes if every path to the net's output runs through the place. A net
        that cannot be traced runs as a whole.

    Raises
    ------
    PlaceError
        If the net lacks the place, or its output is not a single tensor.
    """
    kept: list[torch.Tensor] = []
    with (
        torch.no_grad(),
        tapping(net, [name], lambda _, output: kept.append(output.clone())) as run,
    ):
        answer = run(example)
    outline = _Outline.of(net)
    point = outline.find(name)
    if outline.graph is not None and point is not None:
        short = _shortened(outline.graph, name, point)
        if short is not None:
            with torch.no_grad():
                found = short(example, kept[0].clone())
            # An operation in place whose result nothing takes is lost without its operand.
            if isinstance(found, torch.Tensor) and torch.allclose(found, answer, 1e-4, 1e-5):
                return short

    def whole(images: torch.Tensor, value: torch.Tensor) -> Any:
        with tapping(net, [name], lambda *_: value, replacing=True) as run:
            return run(images)

    return whole


def _shortened(module: fx.GraphModule, name: str, point: _Point) -> fx.GraphModule | None:
    """Give a graph the output of a place as its second input, and drop what is not needed then."""
    graph, value, after = module.graph, point.value, point.after
    if point.path is not None and point.after is None:
        uses = [n for n in graph.nodes if n.op == "call_module" and n.target == point.path]
        if len(uses) <= point.use:
            return None
        value = after = uses[point.use]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        return None
    with graph.inserting_after(inputs[0]):
        given = graph.placeholder("value_of_place")
    _replace_later(graph, _single(name, value), given, after)
    graph.eliminate_dead_code()
    module.recompile()
    return module


@contextmanager
def running_on(batch: torch.Tensor) -> Iterator[None]:
    """Turn what a net raises while it runs into a :class:`RunError` that names its input."""
    try:
        yield
    except (ConvergentError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        remedy = (
            "set data.size and the number of channels (data.mean and data.std), of all nets or of "
            "this one, or the net's arguments, so that they match"
        )
        if not batch.is_floating_point():
            remedy = f"they were passed on as {batch.dtype}; convert them, such as by .float()"
        raise RunError(
            f"the net cannot run on images of shape {tuple(batch.shape[1:])}: {reason}; {remedy}"
        ) from error


def dry_run(
    build: Callable[[], nn.Module],
    shape: Sequence[int],
    measure: Callable[[nn.Module, torch.Tensor], Result],
) -> Result:
    """Call a function with a net and an example of one image, which take no memory if possible.

    The net is built and run on torch's meta device, which computes no values. A net that does not
    support this is run on one blank image on the CPU.

    Parameters
    ----------
    build : callable
        Function that makes the net.
    shape : sequence of int
        Shape (channel, y, x) of an image.
    measure : callable
        Function of the net and the example of shape (1, channel, y, x).
    """
    try:
        with torch.device("meta"):
            return measure(build(), torch.empty(1, *shape))
    except ConvergentError as error:
        if not isinstance(error, RunError):
            raise
    except (NotImplementedError, RuntimeError):
        pass
    return measure(build(), torch.zeros(1, *shape))


def listed(
    found: Sequence[Place], most: int | None = LISTED, marked: Sequence[str] | None = None
) -> str:
    """Write places in lines: name, kind and shape for one image.

    Parameters
    ----------
    found : sequence of Place
    most : int or None
        Largest number of lines; None for all.
    marked : sequence of str, optional
        Names that get a star.
    """
    shown = found[:most]
    names, kinds = (
        max((len(value) for value in values), default=0)
        for values in ([place.name for place in shown], [place.kind for place in shown])
    )
    lines = [
        f"{'*' if place.name in (marked or ()) else ' '} {place.name:{names}}  "
        f"{place.kind:{kinds}}  {' x '.join(map(str, place.shape[1:]))}"
        for place in shown
    ]
    if len(found) > len(shown):
        lines.append(f"  ... and {len(found) - len(shown)} more (`convergent layers` prints all)")
    return "\n".join(lines)


class _Point(NamedTuple):
    """Where to find the output at a place: at a use of a module, or in the traced graph."""

    kind: str
    path: str | None = None  # of the module; None for an operation
    use: int = 0  # number of earlier uses of the module
    value: Any = None  # nodes of the graph that hold the output
    after: fx.Node | None = None  # last node that runs before the output is read


class _Outline:
    """What is known of a net's places without running it."""

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        graph: fx.GraphModule | None = None,
        points: Mapping[str, _Point] | None = None,
        fault: str | None = None,
    ):
        self.modules, self.graph, self.fault = modules, graph, fault
        self.points = dict(points or {})
        self.short = _short_names(modules)

    @classmethod
    def of(cls, net: nn.Module) -> _Outline:
        """Trace a net that is in evaluation mode; one that cannot be traced has modules alone."""
        modules, leaves = _modules(net), _torchvision_modules()
        while True:
            tracer = _Tracer(leaves)
            try:
                with _attributes_kept(net):
                    graph = fx.GraphModule(net, tracer.trace(net))
                break
            except Exception as error:
                # Nets are code of users: tracing may fail in any way.
                if tracer.failed is None:
                    reason = str(error).strip().split("\n")[0]
                    return cls(modules, fault=reason or type(error).__name__)
                leaves = (*leaves, tracer.failed)
        names, points = _Names(modules), {}
        for base, point in tracer.found:
            points[names.next(base, point.path is not None)] = point
        return cls(modules, graph, points)

    def find(self, name: str) -> _Point | None:
        """Find a place; None if the net lacks it."""
        name = next((path for path, parent in self.short.items() if parent == name), name)
        if name in self.points:
            return self.points[name]
        # A module inside one that is not traced through, or of a net that is not traced.
        visible = {point.path for point in self.points.values()}
        base, _, number = name.rpartition("_")
        if name in self.modules:
            path, use = name, 0
        elif base in self.modules and re.fullmatch("[1-9][0-9]*", number):
            numbers = range(1, int(number) + 1)
            path, use = base, sum(f"{base}_{n}" not in self.modules for n in numbers)
        else:
            return None
        return None if path in visible else _Point(_kind(self.modules[path]), path, use)


class _Names:
    """Names of places in the order in which they run: what comes again has a number."""

    def __init__(self, modules: Iterable[str]):
        # The path of a module is its first output's name.
        self.taken, self.used = set(modules), set[str]()

    def next(self, base: str, module: bool) -> str:
        name, number = base, 0
        while name in self.used or (name in self.taken and not (module and number == 0)):
            number += 1
            name = f"{base}_{number}"
        self.used.add(name)
        return name


class _Tracer(fx.Tracer):
    """Tracer that notes where operations, modules and blocks are in the graph, in their order.

    It does not trace through modules of torch and of the classes `leaves`.
    """

    def __init__(self, leaves: tuple[type[nn.Module], ...]):
        super().__init__(autowrap_modules=(math, *_torchvision_ops()))
        self.leaves = leaves
        self.found: list[tuple[str, _Point]] = []
        self.uses: Counter[str] = Counter()
        self.inside = ""
        self.failed: type[nn.Module] | None = None  # the innermost that cannot be traced through

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        return isinstance(module, self.leaves) or super().is_leaf_module(module, path)

    def create_args_for_root(self, root_fn, is_module, concrete_args=None):
        # Arguments with a default have it, as the net is called with images alone.
        function, args = super().create_args_for_root(root_fn, is_module, concrete_args)
        for index, arg in enumerate(args):
            if isinstance(arg, fx.Proxy) and arg.node.op == "placeholder" and arg.node.args:
                args[index] = arg.node.args[0]
                self.graph.erase_node(arg.node)
        return function, args

    def create_proxy(self, kind, target, *args, **kwargs):
        proxy = super().create_proxy(kind, target, *args, **kwargs)
        if kind in ("call_function", "call_method"):
            name = re.sub(r"_[0-9]+$", "", proxy.node.name)
            base = f"{self.inside}.{name}" if self.inside else name
            point = _Point(name.replace("_", ""), value=proxy.node, after=proxy.node)
            self.found.append((base, point))
        return proxy

    def call_module(self, module, forward, args, kwargs):
        path = self.path_of_module(module)
        outer, self.inside = self.inside, path
        try:
            output = super().call_module(module, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or type(module)
            raise
        finally:
            self.inside = outer
        point = _Point(_kind(module), path, self.uses[path])
        self.uses[path] += 1
        if not self.is_leaf_module(module, path):
            nodes = fx.node.map_aggregate(
                output, lambda value: value.node if isinstance(value, fx.Proxy) else value
            )
            # What the block returns may be changed in place after it was computed.
            point = point._replace(value=nodes, after=next(iter(reversed(self.graph.nodes))))
        self.found.append((path, point))
        return output


def _torchvision_ops() -> list[ModuleType]:
    """Return torchvision's own operations, which are traced as in its ``feature_extraction``.

    A net that has any has imported them; for others the import would take more than a second.
    """
    return [sys.modules["torchvision.ops"]] if "torchvision.ops" in sys.modules else []


def _torchvision_modules() -> tuple[type[nn.Module], ...]:
    values = (value for ops in _torchvision_ops() for value in vars(ops).values())
    return tuple(v for v in values if isinstance(v, type) and issubclass(v, nn.Module))


class _Tap(nn.Module):
    """Module in a graph that passes its input on."""

    def __init__(self, name: str, seen: Callable[[str, Any], Any]):
        super().__init__()
        self.name, self.seen = name, seen

    def forward(self, value: Any) -> Any:
        return self.seen(self.name, value)


def _insert_taps(
    module: fx.GraphModule,
    points: Mapping[str, _Point],
    seen: Callable[[str, Any], Any],
    replacing: bool = False,
) -> None:
    """Insert calls of `seen` into a graph, in the order of `points` after the same node."""
    for number, (name, point) in enumerate(reversed(points.items())):
        target = f"_tap_{number}"
        module.add_submodule(target, _Tap(name, seen))
        with module.graph.inserting_after(point.after):
            tap = module.graph.call_module(target, (point.value,))
        if replacing:
            _replace_later(module.graph, _single(name, point.value), tap, tap)
    module.recompile()


def _single(name: str, value: Any) -> fx.Node:
    """Return the node of a place's output."""
    if not isinstance(value, fx.Node):
        raise PlaceError(f"place {name!r} has not one output but several; name one of its parts")
    return value


def _replace_later(graph: fx.Graph, node: fx.Node, other: fx.Node, after: fx.Node) -> None:
    """Let all that follow `after` in a graph take the result of another node."""
    nodes = list(graph.nodes)
    later = set(nodes[nodes.index(after) + 1 :])
    node.replace_all_uses_with(other, delete_user_cb=lambda user: user in later)


def _outputs(
    net: nn.Module, example: torch.Tensor
) -> tuple[list[tuple[Place, torch.Tensor]], torch.Tensor]:
    """Run an example and return all places with their outputs, and the net's own output."""
    with evaluating(net):
        outline = _Outline.of(net)
    visible = {point.path for point in outline.points.values()}
    names = _Names({*outline.modules, *outline.points})
    found: list[tuple[Place, torch.Tensor]] = []

    def add(name: str, kind: str, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim >= 2:
            found.append((Place(name, kind, tuple(output.shape)), output))

    def seen(name: str, output: Any) -> None:
        kind = outline.points[name].kind
        if name not in outline.short.values():
            add(name, kind, output)
        if name in outline.short:
            add(outline.short[name], kind, output)

    def hook(path: str) -> Callable:
        def note(module: nn.Module, args: tuple, output: Any) -> None:
            name = names.next(path, True)
            outline.points.setdefault(name, _Point(_kind(module)))
            seen(name, output)

        return note

    hidden = [path for path in outline.modules if path not in visible]
    tapped = Tapped(net, outline, list(outline.points), seen)
    hooks = [outline.modules[path].register_forward_hook(hook(path)) for path in hidden]
    try:
        with running_on(example), torch.no_grad():
            answer = tapped(example)
    finally:
        for handle in hooks:
            handle.remove()
    return found, answer


def _missing(net: nn.Module, names: Sequence[str], example: torch.Tensor) -> PlaceError:
    """Say that a net lacks a place, and list its places."""
    found = places(net, example)
    return missing(names[0], found, untraceable(net))


def missing(name: str, found: Sequence[Place], fault: str | None = None) -> PlaceError:
    """Make the error for a place that a net lacks.

    Parameters
    ----------
    name : str
        The place that is missing.
    found : sequence of Place
        The places that there are.
    fault : str, optional
        Why the net could not be traced.
    """
    near = difflib.get_close_matches(name, [place.name for place in found], 3, 0.5)
    message = f"the net has no place {name!r}"
    message += f"; did you mean {' or '.join(near)}?" if near else "."
    if fault is not None:
        message += f" Only modules are places of this net, as it cannot be traced ({fault})."
    return PlaceError(f"{message} Its places, in the order in which they run:\n{listed(found)}")


def _modules(net: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in net.named_modules() if path}


def _short_names(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Map the path of each ReLU `relu` at the end of a Sequential to the name of the latter."""
    return {
        f"{path}.relu": path
        for path, module in modules.items()
        if isinstance(module, nn.Sequential)
        and list(module._modules)[-1:] == ["relu"]
        and isinstance(module.relu, nn.ReLU)
    }


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.ReLU):
        return "relu"
    own = not type(module).__module__.startswith("torch.nn") or isinstance(module, nn.Sequential)
    return "block" if own and any(module.children()) else type(module).__name__.lower()


@contextmanager
def _attributes_kept(net: nn.Module) -> Iterator[None]:
    """Restore the attributes of all modules, into which tracing may write."""
    kept = [(values, dict(values)) for m in net.modules() for values in (vars(m), m._buffers)]
    try:
        yield
    finally:
        for values, before in kept:
            values.clear()
            values.update(before)
