// Fills the recording that `mpsref inputs` made: builds its graph with MPS, runs it on the default Metal device, and
// writes every image that recording.json names and nobody has written yet.
//
//     swiftc -O record.swift -o record && ./record FOLDER
//
// NOT RUN ON A DEVICE: no Mac was at hand. Tests hold every class, selector and enum case in here to the SDK's names.
// Needs macOS 10.15 or later.

import Foundation
import Metal
import MetalPerformanceShaders

// ---- the files ----

struct Settings: Decodable {
    let format: String?
    let export_from_graph: Bool?
    let stop_gradient: Bool?
}

struct Descriptor: Decodable {
    let neuron_type: String
    let a: Double?
    let b: Double?
    let c: Double?
    let data: [Double]?
}

struct Node: Decodable {
    let `class`: String
    let result: String
    let label: String?
    let source: String?
    let sources: [String]?
    let source_gradient: String?
    let source_image: String?
    let gradient_state: String?
    let descriptor: Descriptor?
    let a: Double?
    let b: Double?
    let c: Double?
    let a_data: [Double]?
    let primary_scale: Double?
    let secondary_scale: Double?
    let bias: Double?
    let minimum_value: Double?
    let maximum_value: Double?
    let is_secondary_source_filter: Bool?
}

struct GraphFile: Decodable {
    let storage: String?
    let nodes: [Node]
    let results: [String]
    let images: [String: Settings]?
}

struct RecordedImage: Decodable {
    let file: String
    let channel_format: String
    let width: Int
    let height: Int
    let feature_channels: Int
    let number_of_images: Int?
    let data_layout: String?
    // Only of arrays that never were images: a request has none.
    let shape: [Int]?
    let channel_axis: Int?
}

struct Recording: Decodable {
    let graph: String
    let images: [String: RecordedImage]
}

func stop(_ message: String) -> Never {
    FileHandle.standardError.write(("record: " + message + "\n").data(using: .utf8)!)
    exit(2)
}

func needed<T>(_ value: T?, _ name: String) -> T {
    guard let value = value else { stop(name + " is missing: mpsref inputs writes a graph with every number") }
    return value
}

// ---- names of the files, names of the SDK ----

let formats: [String: MPSImageFeatureChannelFormat] = [
    "unorm8": MPSImageFeatureChannelFormat.unorm8,
    "unorm16": MPSImageFeatureChannelFormat.unorm16,
    "float16": MPSImageFeatureChannelFormat.float16,
    "float32": MPSImageFeatureChannelFormat.float32,
]

let elementSizes: [String: Int] = ["unorm8": 1, "unorm16": 2, "float16": 2, "float32": 4]

let layouts: [String: MPSDataLayout] = [
    "HeightxWidthxFeatureChannels": MPSDataLayout.HeightxWidthxFeatureChannels,
    "featureChannelsxHeightxWidth": MPSDataLayout.featureChannelsxHeightxWidth,
]

let neuronTypes: [String: MPSCNNNeuronType] = [
    "none": MPSCNNNeuronType.none,
    "reLU": MPSCNNNeuronType.reLU,
    "linear": MPSCNNNeuronType.linear,
    "sigmoid": MPSCNNNeuronType.sigmoid,
    "hardSigmoid": MPSCNNNeuronType.hardSigmoid,
    "tanH": MPSCNNNeuronType.tanH,
    "absolute": MPSCNNNeuronType.absolute,
    "softPlus": MPSCNNNeuronType.softPlus,
    "softSign": MPSCNNNeuronType.softSign,
    "ELU": MPSCNNNeuronType.ELU,
    "reLUN": MPSCNNNeuronType.reLUN,
    "power": MPSCNNNeuronType.power,
    "exponential": MPSCNNNeuronType.exponential,
    "logarithm": MPSCNNNeuronType.logarithm,
    "geLU": MPSCNNNeuronType.geLU,
]

/// A handle is how the graph says which source or exported image is which.
final class Handle: NSObject, MPSHandle {
    let name: String

    init(name: String) {
        self.name = name
    }

    func label() -> String? {
        return name
    }

    static var supportsSecureCoding: Bool {
        return true
    }

    func encode(with coder: NSCoder) {
        coder.encode(name, forKey: "name")
    }

    init?(coder: NSCoder) {
        name = coder.decodeObject(forKey: "name") as? String ?? ""
    }
}

func float32(_ values: [Double]) -> Data {
    return values.map { Float($0) }.withUnsafeBufferPointer { Data(buffer: $0) }
}

// ---- the graph ----

final class Builder {
    let file: GraphFile
    var images: [String: MPSNNImageNode] = [:]
    var makers: [String: MPSNNFilterNode] = [:]

    init(file: GraphFile) {
        self.file = file
        var waiting = file.nodes
        let made = Set(waiting.map { $0.result })
        for node in waiting {
            for name in reads(node) where !made.contains(name) && images[name] == nil {
                images[name] = MPSNNImageNode(handle: Handle(name: name))
                apply(to: images[name]!, name: name)
            }
        }
        // Nodes may stand in any order; each is made when what it reads is there.
        while !waiting.isEmpty {
            let ready = waiting.filter { node in
                reads(node).allSatisfy { images[$0] != nil } && (node.gradient_state.map { makers[$0] != nil } ?? true)
            }
            if ready.isEmpty { stop("the nodes of the graph depend on each other in a circle") }
            for node in ready {
                let filter = make(node)
                filter.label = node.label
                filter.resultImage.handle = Handle(name: node.result)
                apply(to: filter.resultImage, name: node.result)
                makers[node.result] = filter
                images[node.result] = filter.resultImage
            }
            waiting = waiting.filter { makers[$0.result] == nil }
        }
    }

    func reads(_ node: Node) -> [String] {
        return [node.source, node.source_gradient, node.source_image].compactMap { $0 } + (node.sources ?? [])
    }

    /// Formats go on to the images that are made from this one, so they are set before the next node is.
    func apply(to image: MPSNNImageNode, name: String) {
        guard let settings = file.images?[name] else { return }
        if let format = settings.format { image.format = needed(formats[format], "format " + format) }
        image.stopGradient = settings.stop_gradient ?? false
    }

    func neuron(_ d: Descriptor) -> MPSNNNeuronDescriptor {
        if d.neuron_type == "pReLU" {
            return MPSNNNeuronDescriptor.cnnNeuronPReLUDescriptor(with: float32(needed(d.data, "data")), noCopy: false)
        }
        let type = needed(neuronTypes[d.neuron_type], "neuron type " + d.neuron_type)
        return MPSNNNeuronDescriptor.cnnNeuronDescriptor(
            with: type, a: Float(d.a ?? 0), b: Float(d.b ?? 0), c: Float(d.c ?? 0))
    }

    func make(_ node: Node) -> MPSNNFilterNode {
        if node.source_gradient != nil { return gradient(node) }
        if node.sources != nil { return arithmetic(node) }
        let source = images[needed(node.source, "source")]!
        let a = { Float(needed(node.a, "a")) }
        let b = { Float(needed(node.b, "b")) }
        let c = { Float(needed(node.c, "c")) }
        switch node.class {
        case "MPSCNNNeuronAbsoluteNode": return MPSCNNNeuronAbsoluteNode(source: source)
        case "MPSCNNNeuronELUNode": return MPSCNNNeuronELUNode(source: source, a: a())
        case "MPSCNNNeuronReLUNNode": return MPSCNNNeuronReLUNNode(source: source, a: a(), b: b())
        case "MPSCNNNeuronLinearNode": return MPSCNNNeuronLinearNode(source: source, a: a(), b: b())
        case "MPSCNNNeuronReLUNode": return MPSCNNNeuronReLUNode(source: source, a: a())
        case "MPSCNNNeuronSigmoidNode": return MPSCNNNeuronSigmoidNode(source: source)
        case "MPSCNNNeuronHardSigmoidNode": return MPSCNNNeuronHardSigmoidNode(source: source, a: a(), b: b())
        case "MPSCNNNeuronSoftPlusNode": return MPSCNNNeuronSoftPlusNode(source: source, a: a(), b: b())
        case "MPSCNNNeuronSoftSignNode": return MPSCNNNeuronSoftSignNode(source: source)
        case "MPSCNNNeuronTanHNode": return MPSCNNNeuronTanHNode(source: source, a: a(), b: b())
        case "MPSCNNNeuronPReLUNode":
            return MPSCNNNeuronPReLUNode(source: source, aData: float32(needed(node.a_data, "a_data")))
        case "MPSCNNNeuronPowerNode": return MPSCNNNeuronPowerNode(source: source, a: a(), b: b(), c: c())
        case "MPSCNNNeuronExponentialNode": return MPSCNNNeuronExponentialNode(source: source, a: a(), b: b(), c: c())
        case "MPSCNNNeuronLogarithmNode": return MPSCNNNeuronLogarithmNode(source: source, a: a(), b: b(), c: c())
        case "MPSCNNNeuronGeLUNode": return MPSCNNNeuronGeLUNode(source: source)
        case "MPSCNNNeuronNode":
            return MPSCNNNeuronNode(source: source, descriptor: neuron(needed(node.descriptor, "descriptor")))
        case "MPSNNInitialGradientNode": return MPSNNInitialGradientNode(source: source)
        default: stop("no node class " + node.class)
        }
    }

    func arithmetic(_ node: Node) -> MPSNNFilterNode {
        let sources = needed(node.sources, "sources")
        let left = images[sources[0]]!
        let right = images[sources[1]]!
        let made: MPSNNBinaryArithmeticNode
        switch node.class {
        case "MPSNNAdditionNode": made = MPSNNAdditionNode(leftSource: left, rightSource: right)
        case "MPSNNSubtractionNode": made = MPSNNSubtractionNode(leftSource: left, rightSource: right)
        case "MPSNNMultiplicationNode": made = MPSNNMultiplicationNode(leftSource: left, rightSource: right)
        default: stop("no node class " + node.class)
        }
        if let value = node.primary_scale { made.primaryScale = Float(value) }
        if let value = node.secondary_scale { made.secondaryScale = Float(value) }
        if let value = node.bias { made.bias = Float(value) }
        if let value = node.minimum_value { made.minimumValue = Float(value) }
        if let value = node.maximum_value { made.maximumValue = Float(value) }
        return made
    }

    func gradient(_ node: Node) -> MPSNNFilterNode {
        let incoming = images[needed(node.source_gradient, "source_gradient")]!
        let image = images[needed(node.source_image, "source_image")]!
        let forward = makers[needed(node.gradient_state, "gradient_state")]!
        if node.class == "MPSCNNNeuronGradientNode" {
            guard let state = forward.resultState as? MPSNNGradientStateNode else { stop("no state of " + node.result) }
            return MPSCNNNeuronGradientNode(
                sourceGradient: incoming, sourceImage: image, gradientState: state,
                descriptor: neuron(needed(node.descriptor, "descriptor")))
        }
        guard let state = forward.resultState as? MPSNNBinaryGradientStateNode else {
            stop("no state of " + node.result)
        }
        let secondary = needed(node.is_secondary_source_filter, "is_secondary_source_filter")
        let made: MPSNNArithmeticGradientNode
        switch node.class {
        case "MPSNNAdditionGradientNode":
            made = MPSNNAdditionGradientNode(
                sourceGradient: incoming, sourceImage: image, gradientState: state, isSecondarySourceFilter: secondary)
        case "MPSNNSubtractionGradientNode":
            made = MPSNNSubtractionGradientNode(
                sourceGradient: incoming, sourceImage: image, gradientState: state, isSecondarySourceFilter: secondary)
        case "MPSNNMultiplicationGradientNode":
            made = MPSNNMultiplicationGradientNode(
                sourceGradient: incoming, sourceImage: image, gradientState: state, isSecondarySourceFilter: secondary)
        default: stop("no node class " + node.class)
        }
        if let value = node.primary_scale { made.primaryScale = Float(value) }
        if let value = node.secondary_scale { made.secondaryScale = Float(value) }
        return made
    }
}

// ---- images ----

func byteCount(_ entry: RecordedImage) -> Int {
    return entry.height * entry.width * entry.feature_channels * needed(elementSizes[entry.channel_format], "format")
}

func dataLayout(_ entry: RecordedImage) -> MPSDataLayout {
    return needed(layouts[entry.data_layout ?? "HeightxWidthxFeatureChannels"], "data_layout")
}

/// One MPSImage for each image of a source, filled from its file.
func readSource(_ entry: RecordedImage, folder: URL, device: MTLDevice) -> [MPSImage] {
    guard let bytes = try? Data(contentsOf: folder.appendingPathComponent(entry.file)) else {
        stop("cannot read " + entry.file)
    }
    let count = entry.number_of_images ?? 1
    if bytes.count != count * byteCount(entry) { stop(entry.file + " has not the size that recording.json says") }
    let descriptor = MPSImageDescriptor(
        channelFormat: needed(formats[entry.channel_format], "format"), width: entry.width, height: entry.height,
        featureChannels: entry.feature_channels)
    return (0..<count).map { index in
        let image = MPSImage(device: device, imageDescriptor: descriptor)
        bytes.withUnsafeBytes { buffer in
            image.writeBytes(
                buffer.baseAddress! + index * byteCount(entry),
                dataLayout: dataLayout(entry), imageIndex: 0)
        }
        return image
    }
}

func writeResult(_ batch: [MPSImage], _ name: String, _ entry: RecordedImage, folder: URL) {
    if batch.count != entry.number_of_images ?? 1 { stop(name + ": the graph made a batch of another length") }
    var bytes = Data(count: batch.count * byteCount(entry))
    for (index, image) in batch.enumerated() {
        if image.width != entry.width || image.height != entry.height || image.featureChannels != entry.feature_channels
            || image.featureChannelFormat != formats[entry.channel_format] {
            stop(name + ": the graph made an image of another size or format than recording.json says")
        }
        bytes.withUnsafeMutableBytes { buffer in
            image.readBytes(
                buffer.baseAddress! + index * byteCount(entry),
                dataLayout: dataLayout(entry), imageIndex: 0)
        }
    }
    do {
        try bytes.write(to: folder.appendingPathComponent(entry.file), options: .atomic)
    } catch {
        stop("cannot write " + entry.file)
    }
    print("wrote " + entry.file)
}

// ---- the run ----

func load<T: Decodable>(_ type: T.Type, _ url: URL) -> T {
    do {
        return try JSONDecoder().decode(type, from: Data(contentsOf: url))
    } catch {
        stop("\(url.path): \(error)")
    }
}

if CommandLine.arguments.count != 2 { stop("give the folder that mpsref inputs made") }
let folder = URL(fileURLWithPath: CommandLine.arguments[1], isDirectory: true)
let recordingFile = folder.appendingPathComponent("recording.json")
let recording = load(Recording.self, recordingFile)
let graphFile = load(GraphFile.self, folder.appendingPathComponent(recording.graph))
guard let device = MTLCreateSystemDefaultDevice(), let queue = device.makeCommandQueue() else {
    stop("no Metal device")
}

let builder = Builder(file: graphFile)
let sources = recording.images.filter { builder.makers[$0.key] == nil }
var wanted = Set(recording.images.keys.filter { builder.makers[$0] != nil })
for name in wanted {
    // Exported, in memory that the CPU can read. An image that is exported is never fused away.
    builder.images[name]!.exportFromGraph = true
    builder.images[name]!.synchronizeResource = true
    builder.images[name]!.imageAllocator = MPSImage.defaultAllocator()
}

// One graph for each result: what it returns is that image, and what it exports has a handle. Where a graph has several
// results, the SDK does not say in which order they come among the exported images.
for result in graphFile.results + wanted.sorted() where wanted.contains(result) {
    guard let graph = MPSNNGraph(device: device, resultImage: builder.images[result]!, resultImageIsNeeded: true) else {
        stop(result + ": MPS makes no graph of it")
    }
    graph.format = needed(formats[graphFile.storage ?? "float16"], "storage")
    let batches: [[MPSImage]] = graph.sourceImageHandles.map { handle in
        let name = needed(handle.label(), "the handle of a source")
        return readSource(needed(sources[name], "source " + name), folder: folder, device: device)
    }
    guard let commandBuffer = queue.makeCommandBuffer() else { stop("no command buffer") }
    let exported = NSMutableArray()
    guard let batch = graph.encodeBatch(
        to: commandBuffer, sourceImages: batches, sourceStates: nil, intermediateImages: exported,
        destinationStates: nil)
    else { stop(result + ": MPS returned no image") }
    for image in batch { image.synchronize(on: commandBuffer) }
    commandBuffer.commit()
    commandBuffer.waitUntilCompleted()
    if let error = commandBuffer.error { stop(result + ": \(error)") }

    writeResult(batch, result, recording.images[result]!, folder: folder)
    wanted.remove(result)
    let handles = graph.intermediateImageHandles ?? []
    if handles.count != exported.count { stop(result + ": \(exported.count) images for \(handles.count) handles") }
    for (handle, images) in zip(handles, exported) {
        let name = needed(handle.label(), "the handle of an exported image")
        guard wanted.contains(name) else { continue }
        guard let images = images as? [MPSImage] else { stop(name + ": MPS exported no batch of images") }
        writeResult(images, name, recording.images[name]!, folder: folder)
        wanted.remove(name)
    }
}

// Say in the recording which device it was.
let system = ProcessInfo.processInfo.operatingSystemVersionString
guard let text = try? Data(contentsOf: recordingFile),
    var document = (try? JSONSerialization.jsonObject(with: text)) as? [String: Any]
else { stop("recording.json cannot be read again") }
document["device"] = device.name + ", macOS " + system + ", MPSNNGraph, record.swift"
guard let changed = try? JSONSerialization.data(withJSONObject: document, options: .prettyPrinted),
    (try? changed.write(to: recordingFile, options: .atomic)) != nil
else { stop("recording.json cannot be written") }
