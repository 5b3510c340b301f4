"""Kernels of neurons and of a graph's nodes, written from the formulas of their operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mpsref.display import printable
from mpsref.enums import MPSCNNNeuronType
from mpsref.errors import ParameterError, shown
from mpsref.graph import GraphFile
from mpsref.graph.schedule import schedule
from mpsref.lab.expressions import Function
from mpsref.lab.languages import IMAGES, LANGUAGES, NUMBERS, Kernel, Style
from mpsref.neuron import NEURONS, MPSNNNeuronDescriptor
from mpsref.operations import NeuronForward, NeuronGradient, Operation, Role
from mpsref.symbolic import Recorder, Symbol, Tree, recorded, tree_of

__all__ = ["graph_kernels", "graph_text", "images_read", "kernel_of", "kernels_of", "neuron_text", "text"]


def neuron_text(
    neuron: MPSCNNNeuronType | str | None,
    language: str,
    *,
    directions: Sequence[str] = ("forward", "gradient"),
    style: Style | None = None,
    math: str | None = None,
) -> str:
    """
    A neuron's kernels as shader text.

    Parameters
    ----------
    neuron : MPSCNNNeuronType, str or None
        The type of the neuron, None for all; parameters are arguments of the kernels.
    language : str
        ``wgsl``, ``msl``, ``cuda`` or ``glsl``.
    directions : sequence of str
        ``forward``, ``gradient``, or both.
    style : Style, optional
        Memory, format and arithmetic; default: buffers of float32.
    math : str, optional
        ``fast`` or ``precise`` functions. Default: what the compiler's options say.

    Raises
    ------
    ParameterError
        The language does not exist or has no such kernels; the neuron does not exist.

    Examples
    --------
    >>> print(neuron_text("softSign", "wgsl", directions=["forward"]).partition("// softSign, forward: ")[2])
    x / (1 + |x|)
    fn softSign_forward_value(x: f32) -> f32 {
      return x / (1.0 + abs(x));
    }
    <BLANKLINE>
    @compute @workgroup_size(64)
    fn softSign_forward(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
      let i = id.x + id.y * groups.x * 64u;
      if (i >= p.size) { return; }
      result[i] = softSign_forward_value(source[i]);
    }
    <BLANKLINE>
    """
    try:
        rows = (
            NEURONS.values()
            if neuron is None
            else [NEURONS[MPSCNNNeuronType[neuron] if isinstance(neuron, str) else neuron]]
        )
    except (KeyError, TypeError):
        raise ParameterError(f"neuron is {shown(neuron)}: give one of {', '.join(t.name for t in NEURONS)}") from None
    makers = {"forward": NeuronForward, "gradient": NeuronGradient}
    operations: list[Operation] = [
        makers[one](MPSNNNeuronDescriptor(row.neuron_type.name, data=[0.25] if row.per_channel else None))
        for row in rows
        for one in directions
    ]
    return text(kernels_of(operations, style).values(), language, style, math)


def graph_text(file: GraphFile, language: str, *, style: Style | None = None, math: str | None = None) -> str:
    """
    The kernels of all nodes that a graph's results depend on, as shader text; a list of the nodes comes first.

    Parameters and errors are those of `neuron_text`; operations that no kernel is written for raise `ParameterError`.
    """
    kernels = graph_kernels(file, style)
    names = {image: printable(name) for name, image in file.images.items()}
    lines = [
        f"// {names[node.result_image]}: {kernels[node.operation].name}({', '.join(names[i] for i in node.sources)})"
        f"{_parameters(node.operation)}"
        for node in schedule(file.result_images)
    ]
    body = text(kernels.values(), language, style, math)
    head, newline, rest = body.partition("\n")
    nodes = "\n".join(lines) + "\n\n"
    # GLSL wants its version first.
    return f"{head}{newline}{nodes}{rest}" if head.startswith("#version") else nodes + body


def text(kernels: Iterable[Kernel], language: str, style: Style | None = None, math: str | None = None) -> str:
    """The text of kernels; equal ones are written once. Errors are those of `neuron_text`."""
    if language not in LANGUAGES:
        raise ParameterError(f"language is {shown(language)}: choose one of {', '.join(LANGUAGES)}")
    chosen, style = LANGUAGES[language](math), style or Style()
    chosen.refuse(style)
    return chosen.module(list(dict.fromkeys(kernels)), style)


def graph_kernels(file: GraphFile, style: Style | None = None) -> dict[Operation, Kernel]:
    """The kernel of every operation that a graph's results depend on."""
    return kernels_of([node.operation for node in schedule(file.result_images)], style)


def kernels_of(operations: Iterable[Operation], style: Style | None = None) -> dict[Operation, Kernel]:
    """The kernel of each operation; neurons that differ only in parameters share one."""
    kernels: dict[Operation, Kernel] = {}
    taken: dict[str, Tree] = {}
    for operation in dict.fromkeys(operations):
        kernel = kernel_of(operation, style)
        base, number = kernel.name, 1
        while taken.setdefault(kernel.name, kernel.function.tree) != kernel.function.tree:
            number += 1
            kernel = kernel_of(operation, style, f"{base}_{number}")
        kernels[operation] = kernel
    return kernels


def kernel_of(operation: Operation, style: Style | None = None, name: str = "") -> Kernel:
    """
    The kernel of an operation.

    Raises
    ------
    ParameterError
        Its elements depend on elements in other places, and no kernel is written for that.
    """
    if not operation.is_pointwise:
        raise ParameterError(f"{operation.kind}: kernels are written for operations element by element only")
    style = style or Style()
    d, images = operation.descriptor, images_read(operation)
    name = name or _name(operation)
    numbers = tuple(NUMBERS[image] for image in images)
    arguments = (*numbers, "slope") if d is not None and d.row.per_channel else numbers
    tree = _tree(operation)
    if d is None:
        comment = f"{name}: {operation.text(_texts(operation), '')}"
    elif operation.makes_gradient:
        comment = f"{d.neuron_type.name}, gradient: dy times ({d.row.slope})"
    else:
        comment = f"{d.neuron_type.name}, forward: {d.row.formula}"
    function = Function(f"{name}_value", comment, arguments, tree, style.arithmetic)
    ordered = tuple(image for image in IMAGES if image in images)
    return Kernel(name, _ordered(function, images, ordered), ordered, d is not None and d.row.per_channel)


def images_read(operation: Operation) -> list[str]:
    """What a kernel reads from each source whose values are read, in their order."""
    roles = [role for role in operation.roles if role is not Role.SIZE]
    inputs = iter(("source", "secondary"))
    return ["gradient" if role is Role.GRADIENT else next(inputs) for role in roles]


def _ordered(function: Function, images: Sequence[str], ordered: Sequence[str]) -> Function:
    """The function with its arguments in the order of the kernel's."""
    rest = function.arguments[len(images) :]
    numbers = tuple(NUMBERS[image] for image in ordered)
    return Function(function.name, function.comment, (*numbers, *rest), function.tree, function.kind)


def _tree(operation: Operation) -> Tree:
    d, images = operation.descriptor, images_read(operation)

    def record(p: object, f: Recorder) -> Tree:
        symbols = [Symbol((NUMBERS[image],), f.assumed) for image in images]
        if d is None:
            return tree_of(operation.stepwise(f, *symbols))
        formula = d.row.stepwise_forward if operation.direction == "forward" else d.row.stepwise_derivative
        return tree_of(operation.stepwise(f, *symbols, function=lambda x: formula(x, p, f)))  # type: ignore[arg-type]

    return recorded(record)


def _texts(operation: Operation) -> list[str]:
    """The names of the numbers for all sources; those whose size alone is read have none."""
    names = iter(NUMBERS[image] for image in images_read(operation))
    return ["" if role is Role.SIZE else next(names) for role in operation.roles]


def _name(operation: Operation) -> str:
    d = operation.descriptor
    if d is None:
        return f"{operation.kind}_gradient" if operation.makes_gradient else operation.kind
    name = "identity" if d.neuron_type is MPSCNNNeuronType.none else d.neuron_type.name
    return f"{name}_{operation.direction}"


def _parameters(operation: Operation) -> str:
    d = operation.descriptor
    if d is None or not d.row.parameters:
        return "" if d is None or d.data is None else f", slopes = {', '.join(f'{x:.6g}' for x in d.data)}"
    values: Mapping[str, float] = {name: getattr(d, name) for name in d.row.parameters}
    return "".join(f", {name} = {value:.6g}" for name, value in values.items())
