"""What `check` finds in a graph, and what graph files refuse of that."""

import json

import numpy as np
import pytest

import mpsref as mps
from builders import F, image, named
from mpsref.cli import main


def neuron_gradient(**changed):
    """A tanH and its gradient, given what is not as it should be."""
    x, dy = image("x"), image("dy")
    y = named(mps.MPSCNNNeuronTanHNode(source=x, a=2), "y")
    right = {"source_gradient": dy, "source_image": x, "gradient_state": y.result_state, "descriptor": y.descriptor}
    made = {name: value(y) if callable(value) else value for name, value in changed.items()}
    return named(mps.MPSCNNNeuronGradientNode(**(right | made)), "dx")


def arithmetic(kind=mps.MPSNNAdditionNode):
    """A forward node of two sources and its two gradients."""
    node = named(kind(left_source=image("l"), right_source=image("r")), "s")
    left, right = node.gradient_filters(with_source=image("ds"))
    return node, named(left, "dl"), named(right, "dr")


def fields(graph):
    return [(finding.name, finding.field) for finding in mps.check(graph)]


def document_of(node):
    """What a graph file would say, of a node that `from_results` refuses."""
    results = [node.result_image]
    nodes = [*dict.fromkeys([node.forward_node, node])]
    images = dict.fromkeys(each for one in nodes for each in (*one.sources, one.result_image))
    names = {each: each.handle for each in images}
    return mps.GraphFile(F.float16, tuple(nodes), {name: each for each, name in names.items()},
                         tuple(names[each] for each in results)).to_json()  # fmt: skip


def test_nothing_is_found_in_graphs_as_their_methods_make_them():
    x, dy = image("x"), image("dy")
    h = mps.MPSCNNNeuronTanHNode(source=x)
    both = mps.MPSNNMultiplicationNode(left_source=h, right_source=x)
    total = mps.MPSNNSubtractionNode(left_source=both, right_source=image("z"))
    total.primary_scale, total.bias, total.maximum_value = 3, 1, 2
    results = total.training_graph(with_source_gradient=dy)

    assert mps.check(results) == []
    assert mps.check(mps.MPSNNGraph(result_images=results)) == []
    assert mps.check(mps.GraphFile.from_results(results)) == []
    assert mps.check(total) == mps.check(x) == []


REFUSED = {
    "parameter": ({"descriptor": mps.MPSNNNeuronDescriptor("tanH", a=1)}, "descriptor", ["a=1.0", "'y'", "own type"]),
    "type": ({"descriptor": "sigmoid"}, "descriptor", ["sigmoid", "TanHNode a=2.0", "own type and parameters"]),
    "result": ({"source_image": lambda y: y.result_image}, "source_image", ["'y', the result", "give 'x'"]),
    "stranger": ({"source_image": image("z")}, "source_image", ["'z'", "not what the forward node of 'y' reads"]),
    "gradient": ({"source_image": image("dz"), "source_gradient": image("dz2")}, "source_image", ["'dz'"]),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_a_neurons_gradient_that_contradicts_its_forward_node_is_found_and_refused_by_files(mistake):
    changed, field, words = REFUSED[mistake]
    node = neuron_gradient(**changed)

    (finding,) = mps.check(node)

    assert (finding.name, finding.field, finding.node) == ("dx", field, node)
    assert all(word in str(finding) for word in ["dx", field, *words])
    assert mps.check(mps.MPSNNGraph(result_image=node)) == [finding], "accepted by graphs, as by Apple's"
    with pytest.raises(mps.ParameterError) as of_results:
        mps.GraphFile.from_results([node])
    assert str(of_results.value) == str(finding)
    with pytest.raises(mps.FileFormatError) as of_file:
        mps.GraphFile.from_json(document_of(node))
    assert finding.text in str(of_file.value), "what is refused by one is refused by the other, in the same words"
    assert f"nodes[1].{field}: " in str(of_file.value)


def test_an_arithmetic_gradient_of_another_class_is_found_and_refused_by_files():
    node = named(mps.MPSNNAdditionNode(left_source=image("l"), right_source=image("r")), "s")
    wrong = mps.MPSNNSubtractionGradientNode(
        source_gradient=image("ds"), source_image=node.sources[1], forward_filter=node, is_secondary_source_filter=True
    )
    named(wrong, "dr")

    (finding,) = mps.check(wrong)

    assert str(finding).startswith("dr: class is MPSNNSubtractionGradientNode, but 's' is made by <MPSNNAdditionNode")
    assert str(finding).endswith("give MPSNNAdditionGradientNode")
    with pytest.raises(mps.ParameterError, match="dr: class is MPSNNSubtractionGradientNode"):
        mps.GraphFile.from_results([wrong])
    with pytest.raises(mps.FileFormatError, match=r"nodes\[1\].class: is MPSNNSubtractionGradientNode"):
        mps.GraphFile.from_json(document_of(wrong))


def test_scales_are_found_only_where_they_count():
    _, left, right = arithmetic()
    left.secondary_scale = 5
    right.secondary_scale = 7
    assert [str(finding) for finding in mps.check([left, right])] == [
        "dr: secondary_scale is 7, but 1 in 's': give the forward node's"
    ]
    _, left, right = arithmetic(mps.MPSNNMultiplicationNode)
    left.secondary_scale = 5
    assert fields([left, right]) == [("dl", "secondary_scale")]
    assert mps.GraphFile.from_results([left, right]), "files hold scales of their own"


def test_what_an_arithmetic_gradient_ignores_and_a_source_of_the_wrong_side_are_found():
    node, left, right = arithmetic()
    left.bias, left.maximum_value, right.minimum_value = 1, 2, -3
    assert fields([left, right]) == [("dl", "bias"), ("dl", "maximum_value"), ("dr", "minimum_value")]
    other = mps.MPSNNAdditionGradientNode(
        gradient_images=[image("ds"), node.sources[1]], forward_filter=node, is_secondary_source_filter=False
    )
    (finding,) = mps.check(other)
    assert (finding.field, finding.text) == (
        "source_image", "is 'r', the other source of the forward node of 's': give 'l'")  # fmt: skip


@pytest.mark.parametrize("of", ["gradients", "forward"])
def test_exchanged_clamps_are_found_though_no_graph_can_be_made(of):
    node, left, right = arithmetic()
    node.minimum_value, node.maximum_value = 2, 1
    left.bias = 1  # not looked at: what the gradient of such a node is cannot be said
    looked_at = [left, right] if of == "gradients" else node
    assert [str(finding) for finding in mps.check(looked_at)] == [
        "s: minimum_value is 2, above maximum_value, 1: exchange them"
    ]
    document = mps.GraphFile.from_results([arithmetic()[0]]).to_json()
    document["nodes"][0] |= {"minimum_value": 2, "maximum_value": 1}
    with pytest.raises(mps.FileFormatError, match=r"nodes\[0\].minimum_value: is 2, above maximum_value, 1"):
        mps.GraphFile.from_json(document)


def test_a_gradient_that_is_stored_as_unorm_is_found():
    node = neuron_gradient()
    node.sources[0].format = F.unorm8
    assert fields(node) == [("dy", "format")], "the incoming one; its format is no longer that of the result"
    node.result_image.format = "unorm16"
    assert fields(node) == [("dy", "format"), ("dx", "format")]
    node = neuron_gradient()
    assert fields(mps.MPSNNGraph(result_image=node, format="unorm8")) == [("dx", "format")]
    assert fields(mps.GraphFile.from_results([node], "unorm8")) == [("dx", "format")]
    assert fields(mps.MPSNNGraph(result_image=node.forward_node, format="unorm8")) == [], "a forward image may be"


def test_sources_that_only_their_order_tells_apart_are_found():
    total = mps.MPSNNAdditionNode(left_source=image("x"), right_source=image(None))
    (finding,) = mps.check(total)
    assert (finding.node, finding.field) == (total.sources[1], "handle")
    assert "source 1 of 2" in finding.text
    assert mps.check(mps.MPSCNNNeuronTanHNode(source=image(None))) == [], "there is one alone"
    twice = mps.MPSNNAdditionNode(left_source=image("x"), right_source=image("x"))
    (finding,) = mps.check(twice)
    assert (finding.node, finding.field) == (twice.sources[1], "handle")
    assert "'x', which another source has too" in finding.text
    x = image("x")
    assert mps.check(mps.MPSNNAdditionNode(left_source=x, right_source=x)) == []


def test_an_exported_source_is_found():
    x = mps.MPSNNImageNode.exported_node(with_="x")
    assert fields(mps.MPSCNNNeuronTanHNode(source=x)) == [("x", "export_from_graph")]


@pytest.mark.parametrize("graph", [None, "graph.json", 3, {}, [3], [None]])
def test_what_is_no_graph_cannot_be_checked(graph):
    with pytest.raises(mps.ParameterError, match=r"^graph is a"):
        mps.check(graph)


def test_files_take_no_name_class_or_number_of_results_that_cannot_be_read():
    n = mps.MPSCNNNeuronTanHNode(source=image("x" * 1001))
    with pytest.raises(mps.ParameterError, match=r"no graph file can hold it: .*1 to 1000 characters"):
        mps.GraphFile.from_results([n])
    with pytest.raises(mps.ParameterError, match="results: has 0 items"):
        mps.GraphFile.from_results([])

    class Mine(mps.MPSCNNNeuronTanHNode):
        pass

    with pytest.raises(mps.ParameterError, match="Mine has no place in a graph file"):
        mps.GraphFile.from_results([Mine(source=image("x"))])


def test_inspect_lists_what_is_suspicious(tmp_path, capsys):
    _, left, right = arithmetic()
    right.secondary_scale = 7
    mps.GraphFile.from_results([left, right]).write(tmp_path / "graph.json")

    assert main(["inspect", str(tmp_path / "graph.json")]) == 0
    assert "suspicious:\n  dr: secondary_scale is 7, but 1 in 's'" in capsys.readouterr().out
    assert main(["inspect", "--json", str(tmp_path / "graph.json")]) == 0
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert (finding["image"], finding["field"]) == ("dr", "secondary_scale")
    right.secondary_scale = 1
    mps.GraphFile.from_results([left, right]).write(tmp_path / "graph.json")
    assert main(["inspect", str(tmp_path / "graph.json")]) == 0
    assert "suspicious" not in capsys.readouterr().out


def test_the_classic_mistake_is_evaluated_as_apples_graph_does():
    node = neuron_gradient(source_image=lambda y: y.result_image)
    y, dy = np.float16([[[0.5]]]), np.float16([[[1]]])
    got = mps.MPSNNGraph(result_image=node).run(x=np.arctanh(y / 2) * 1, dy=dy)["dx"].to_array()
    stored = mps.MPSNNGraph(result_image=node.forward_node).run(x=np.arctanh(y / 2) * 1)["y"].to_array()
    assert got == mps.neuron.gradient(node.descriptor, stored, dy[np.newaxis])
