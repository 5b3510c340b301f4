// Kernels of tanH in WGSL, for the nodes of examples/metal/tanh.json, on half textures: slices of four channels, and of
// a batch one image after the other. Their names say what is bound where.

struct Parameters {
  a: f32,
  b: f32,
}

@group(0) @binding(0) var source: texture_2d_array<f32>;
@group(0) @binding(1) var gradient: texture_2d_array<f32>;
@group(0) @binding(2) var result: texture_storage_2d_array<rgba16float, write>;
@group(0) @binding(3) var<uniform> p: Parameters;

fn is_outside(at: vec3u) -> bool {
  return any(at.xy >= textureDimensions(result)) || at.z >= textureNumLayers(result);
}

@compute @workgroup_size(8, 8)
fn tanh_forward(@builtin(global_invocation_id) at: vec3u) {
  if (is_outside(at)) { return; }
  let x = textureLoad(source, at.xy, at.z, 0);
  textureStore(result, at.xy, at.z, p.a * tanh(p.b * x));
}

@compute @workgroup_size(8, 8)
fn tanh_gradient(@builtin(global_invocation_id) at: vec3u) {
  if (is_outside(at)) { return; }
  let t = tanh(p.b * textureLoad(source, at.xy, at.z, 0));
  textureStore(result, at.xy, at.z, textureLoad(gradient, at.xy, at.z, 0) * (p.a * p.b * (1.0 - t * t)));
}
