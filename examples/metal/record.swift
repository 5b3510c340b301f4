// Fills the recording that `mpsref inputs` made: builds its graph with MPS, runs it on the default Metal device, and
// writes every image that recording.json names.
//
//     swiftc -O record.swift -o record && ./record FOLDER [--force]
//
// Exit status: 0, every image is written; 2, one line says what is wrong or missing. Without --force nothing is written
// over an image that is there.
//
// NOT RUN ON A DEVICE: no Apple GPU was at hand. Tests hold every class, label, type and optional in here to the SDK.
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
    FileHandle.standardError.write(Data(("record: " + message + "\n").utf8))
    exit(2)
}

func needed<T>(_ value: T?, _ name: String) -> T {
    guard let value else { stop(name + " is missing: give the folder that mpsref inputs made") }
    return value
}

// ---- names of the files, names of the SDK ----

func channelFormat(_ name: String) -> MPSImageFeatureChannelFormat {
    switch name {
    case "unorm8": return MPSImageFeatureChannelFormat.unorm8
    case "unorm16": return MPSImageFeatureChannelFormat.unorm16
    case "float16": return MPSImageFeatureChannelFormat.float16
    case "float32": return MPSImageFeatureChannelFormat.float32
    default: stop("no format " + name)
    }
}

func elementSize(_ name: String) -> Int {
    switch name {
    case "unorm8": return 1
    case "unorm16", "float16": return 2
    case "float32": return 4
    default: stop("no format " + name)
    }
}

func dataLayout(_ entry: RecordedImage) -> MPSDataLayout {
    switch entry.data_layout ?? "HeightxWidthxFeatureChannels" {
    case "HeightxWidthxFeatureChannels": return MPSDataLayout.HeightxWidthxFeatureChannels
    case "featureChannelsxHeightxWidth": return MPSDataLayout.featureChannelsxHeightxWidth
    default: stop(entry.file + ": no data_layout of images")
    }
}

func neuronType(_ name: String) -> MPSCNNNeuronType {
    switch name {
    case "none": return MPSCNNNeuronType.none
    case "reLU": return MPSCNNNeuronType.reLU
    case "linear": return MPSCNNNeuronType.linear
    case "sigmoid": return MPSCNNNeuronType.sigmoid
    case "hardSigmoid": return MPSCNNNeuronType.hardSigmoid
    case "tanH": return MPSCNNNeuronType.tanH
    case "absolute": return MPSCNNNeuronType.absolute
    case "softPlus": return MPSCNNNeuronType.softPlus
    case "softSign": return MPSCNNNeuronType.softSign
    case "ELU": return MPSCNNNeuronType.ELU
    case "reLUN": return MPSCNNNeuronType.reLUN
    case "power": return MPSCNNNeuronType.power
    case "exponential": return MPSCNNNeuronType.exponential
    case "logarithm": return MPSCNNNeuronType.logarithm
    case "geLU": return MPSCNNNeuronType.geLU
    default: stop("no neuron type " + name)
    }
}

/// A handle is how the graph says which source or exported image is which.
final class Handle: NSObject, MPSHandle {
    let name: String

    init(name: String) {
        self.name = name
        super.init()
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
        super.init()
    }
}

func float32(_ values: [Double]) -> Data {
    var data = Data()
    for value in values {
        // Metal's machines are little-endian, as the files are.
        withUnsafeBytes(of: Float(value).bitPattern) { data.append(contentsOf: $0) }
    }
    return data
}

// ---- the graph ----

final class Builder {
    let file: GraphFile
    let entries: [String: RecordedImage]
    var images: [String: MPSNNImageNode] = [:]
    var makers: [String: MPSNNFilterNode] = [:]

    init(file: GraphFile, entries: [String: RecordedImage]) {
        self.file = file
        self.entries = entries
        var waiting = file.nodes
        let made = Set(waiting.map { $0.result })
        for node in waiting {
            for name in reads(node) where !made.contains(name) && images[name] == nil {
                let image = MPSNNImageNode(handle: Handle(name: name))
                apply(to: image, name: name)
                images[name] = image
            }
        }
        // Nodes may stand in any order; each is made when what it reads is there.
        while !waiting.isEmpty {
            let ready = waiting.filter { node in isReady(node) }
            if ready.isEmpty { stop("the nodes of the graph depend on each other in a circle") }
            for node in ready {
                let filter = make(node)
                let image = filter.resultImage
                filter.label = node.label
                image.handle = Handle(name: node.result)
                apply(to: image, name: node.result)
                makers[node.result] = filter
                images[node.result] = image
            }
            waiting = waiting.filter { node in makers[node.result] == nil }
        }
    }

    func reads(_ node: Node) -> [String] {
        let single = [node.source, node.source_gradient, node.source_image].compactMap { $0 }
        return single + (node.sources ?? [])
    }

    func isReady(_ node: Node) -> Bool {
        if let state = node.gradient_state, makers[state] == nil { return false }
        return reads(node).allSatisfy { name in images[name] != nil }
    }

    func image(_ name: String?, _ field: String) -> MPSNNImageNode {
        return needed(images[needed(name, field)], field)
    }

    /// A result takes over the format of its first source unless it has one, so every image gets its own.
    func apply(to image: MPSNNImageNode, name: String) {
        let settings = file.images?[name]
        if let format = entries[name]?.channel_format ?? settings?.format { image.format = channelFormat(format) }
        image.stopGradient = settings?.stop_gradient ?? false
    }

    func neuron(_ d: Descriptor) -> MPSNNNeuronDescriptor {
        if d.neuron_type == "pReLU" {
            return MPSNNNeuronDescriptor.cnnNeuronPReLUDescriptor(with: float32(needed(d.data, "data")), noCopy: false)
        }
        return MPSNNNeuronDescriptor.cnnNeuronDescriptor(
            with: neuronType(d.neuron_type), a: Float(d.a ?? 0), b: Float(d.b ?? 0), c: Float(d.c ?? 0))
    }

    func make(_ node: Node) -> MPSNNFilterNode {
        if node.source_gradient != nil { return gradient(node) }
        if node.sources != nil { return arithmetic(node) }
        let source = image(node.source, "source")
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
        if sources.count != 2 { stop(node.result + ": needs two sources") }
        let left = image(sources[0], "sources")
        let right = image(sources[1], "sources")
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
        let incoming = image(node.source_gradient, "source_gradient")
        let source = image(node.source_image, "source_image")
        let forward = needed(makers[needed(node.gradient_state, "gradient_state")], "gradient_state")
        if node.class == "MPSCNNNeuronGradientNode" {
            guard let state = forward.resultState as? MPSNNGradientStateNode else { stop("no state of " + node.result) }
            return MPSCNNNeuronGradientNode(
                sourceGradient: incoming, sourceImage: source, gradientState: state,
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
                sourceGradient: incoming, sourceImage: source, gradientState: state, isSecondarySourceFilter: secondary)
        case "MPSNNSubtractionGradientNode":
            made = MPSNNSubtractionGradientNode(
                sourceGradient: incoming, sourceImage: source, gradientState: state, isSecondarySourceFilter: secondary)
        case "MPSNNMultiplicationGradientNode":
            made = MPSNNMultiplicationGradientNode(
                sourceGradient: incoming, sourceImage: source, gradientState: state, isSecondarySourceFilter: secondary)
        default: stop("no node class " + node.class)
        }
        if let value = node.primary_scale { made.primaryScale = Float(value) }
        if let value = node.secondary_scale { made.secondaryScale = Float(value) }
        return made
    }
}

// ---- images ----

func byteCount(_ entry: RecordedImage) -> Int {
    for size in [entry.height, entry.width, entry.feature_channels, entry.number_of_images ?? 1]
    where size < 1 || size > 65_536 {
        stop(entry.file + " has a size that no image has")
    }
    return entry.height * entry.width * entry.feature_channels * elementSize(entry.channel_format)
}

/// The place of an image's file, which is in the folder or below.
func place(_ entry: RecordedImage, _ folder: URL) -> URL {
    if entry.file.hasPrefix("/") || entry.file.split(separator: "/").contains("..") {
        stop(entry.file + " lies outside the folder")
    }
    return folder.appendingPathComponent(entry.file)
}

/// One MPSImage for each image of a source, filled from its file.
func readSource(_ entry: RecordedImage, folder: URL, device: any MTLDevice) -> [MPSImage] {
    guard let bytes = try? Data(contentsOf: place(entry, folder)) else { stop("cannot read " + entry.file) }
    let size = byteCount(entry)
    let count = entry.number_of_images ?? 1
    if bytes.count != count * size { stop(entry.file + " has not the size that recording.json says") }
    let descriptor = MPSImageDescriptor(
        channelFormat: channelFormat(entry.channel_format), width: entry.width, height: entry.height,
        featureChannels: entry.feature_channels)
    var images: [MPSImage] = []
    for index in 0..<count {
        let image = MPSImage(device: device, imageDescriptor: descriptor)
        bytes.withUnsafeBytes { (buffer: UnsafeRawBufferPointer) -> Void in
            guard let start = buffer.baseAddress else { stop(entry.file + " is empty") }
            image.writeBytes(start + index * size, dataLayout: dataLayout(entry), imageIndex: 0)
        }
        images.append(image)
    }
    return images
}

func writeResult(_ batch: [MPSImage], _ name: String, _ entry: RecordedImage, folder: URL) {
    let size = byteCount(entry)
    if batch.count != entry.number_of_images ?? 1 { stop(name + ": the graph made a batch of another length") }
    var bytes = Data(count: batch.count * size)
    for (index, image) in batch.enumerated() {
        if image.width != entry.width || image.height != entry.height || image.featureChannels != entry.feature_channels
            || image.featureChannelFormat != channelFormat(entry.channel_format) {
            stop(name + ": the graph made an image of another size or format than recording.json says")
        }
        bytes.withUnsafeMutableBytes { (buffer: UnsafeMutableRawBufferPointer) -> Void in
            guard let start = buffer.baseAddress else { stop(entry.file + " is empty") }
            image.readBytes(start + index * size, dataLayout: dataLayout(entry), imageIndex: 0)
        }
    }
    do {
        try bytes.write(to: place(entry, folder), options: .atomic)
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
        stop(url.path + ": \(error)")
    }
}

/// What one graph returns and exports, by name.
func encode(
    _ result: String, _ builder: Builder, _ device: any MTLDevice, _ queue: any MTLCommandQueue, folder: URL
) -> [String: [MPSImage]] {
    let image = builder.image(result, "image " + result)
    // A result that is exported too may come without a handle.
    image.exportFromGraph = false
    guard let graph = MPSNNGraph(device: device, resultImage: image, resultImageIsNeeded: true) else {
        stop(result + ": MPS makes no graph of it")
    }
    graph.format = channelFormat(builder.file.storage ?? "float16")
    var batches: [[MPSImage]] = []
    for handle in graph.sourceImageHandles {
        let name = needed(handle.label(), "the handle of a source")
        batches.append(readSource(needed(builder.entries[name], "source " + name), folder: folder, device: device))
    }
    guard let commandBuffer = queue.makeCommandBuffer() else { stop("Metal makes no command buffer") }
    let exported = NSMutableArray()
    guard
        let returned = graph.encodeBatch(
            to: commandBuffer, sourceImages: batches, sourceStates: nil, intermediateImages: exported,
            destinationStates: nil)
    else { stop(result + ": MPS returned no image") }
    var others: [[MPSImage]] = []
    for element in exported {
        guard let batch = element as? [MPSImage] else { stop(result + ": MPS exported no batch of images") }
        others.append(batch)
    }
    // The CPU sees nothing of managed memory that was not synchronized before the commit.
    for batch in [returned] + others {
        for image in batch { image.synchronize(on: commandBuffer) }
    }
    commandBuffer.commit()
    commandBuffer.waitUntilCompleted()
    if let error = commandBuffer.error { stop(result + ": \(error)") }
    image.exportFromGraph = true

    let handles = graph.intermediateImageHandles ?? []
    if others.count == handles.count + 1 {
        // The result itself, or, where none is that, what comes without a handle comes first.
        let extra = others.firstIndex(where: { batch in batch.elementsEqual(returned, by: { $0 === $1 }) })
        others.remove(at: extra ?? 0)
    }
    if others.count != handles.count { stop(result + ": \(others.count) images for \(handles.count) handles") }
    var images = [result: returned]
    for (handle, batch) in zip(handles, others) {
        images[needed(handle.label(), "the handle of an exported image")] = batch
    }
    return images
}

/// Say in the recording which device it was.
func nameDevice(_ name: String, in file: URL) {
    let system = ProcessInfo.processInfo.operatingSystemVersionString
    guard let text = try? Data(contentsOf: file),
        let object = try? JSONSerialization.jsonObject(with: text),
        var document = object as? [String: Any]
    else { stop("recording.json cannot be read again") }
    document["device"] = name + ", macOS " + system + ", MPSNNGraph, record.swift"
    do {
        let changed = try JSONSerialization.data(withJSONObject: document, options: [.prettyPrinted])
        try changed.write(to: file, options: .atomic)
    } catch {
        stop("recording.json cannot be written")
    }
}

func run(_ arguments: [String]) {
    let folders = arguments.filter { $0 != "--force" }
    guard folders.count == 1, let path = folders.first else { stop("give the folder that mpsref inputs made") }
    let folder = URL(fileURLWithPath: path, isDirectory: true)
    let recordingFile = folder.appendingPathComponent("recording.json")
    let recording = load(Recording.self, recordingFile)
    let graphFile = load(GraphFile.self, folder.appendingPathComponent(recording.graph))
    let builder = Builder(file: graphFile, entries: recording.images)
    var wanted = Set(recording.images.keys.filter { name in builder.makers[name] != nil })
    for name in wanted.sorted() {
        let file = place(needed(recording.images[name], name), folder)
        if !arguments.contains("--force") && FileManager.default.fileExists(atPath: file.path) {
            stop(file.lastPathComponent + " is there already: give --force to write over what is there")
        }
    }
    guard let device = MTLCreateSystemDefaultDevice(), let queue = device.makeCommandQueue() else {
        stop("no Metal device")
    }
    for name in wanted {
        // Exported, in memory that the CPU can read. An image that is exported is never fused away.
        let image = builder.image(name, "image " + name)
        image.exportFromGraph = true
        image.synchronizeResource = true
        image.imageAllocator = MPSImage.defaultAllocator()
    }
    // One graph for each result: what it returns is that image, and what it exports has a handle. Where a graph has
    // several results, the SDK does not say in which order they come among the exported images.
    for result in graphFile.results + wanted.sorted() where wanted.contains(result) {
        for (name, batch) in encode(result, builder, device, queue, folder: folder) {
            if wanted.remove(name) != nil {
                writeResult(batch, name, needed(recording.images[name], name), folder: folder)
            }
        }
    }
    nameDevice(device.name, in: recordingFile)
}

run(Array(ProcessInfo.processInfo.arguments.dropFirst()))
